# SPDX-License-Identifier: Apache-2.0
"""Measures the cases of a suite: ours, torch and plain flax in turn (A B C A B C ...)."""

import dataclasses
import os
from collections.abc import Iterable, Iterator

import flax
import jax

from efficient_layers import measure
from efficient_layers.evidence import jax_side, torch_side
from efficient_layers.evidence.cases import Case
from efficient_layers.measure.environment import cores
from efficient_layers.measure.latency import STEADY_SPREAD

# A plain layer whose calls would take longer in all (its depthwise training: seconds a call) is
# measured by a single one, before the others.
PLAIN_S = 3.0


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table. Milliseconds are medians of warm calls.

    `ratio` is theirs_ms / ours_ms: above 1, ours is faster. `compile_s` is what our first call took
    beyond a warm one. A side that was not measured is None. `spread` is the largest p90 / p10 of
    ours and theirs, `load` the machine's load average when the run began. With other jobs on the
    cores torch's OpenMP threads wait for each other: 20 ms became 1,100 ms (ratio 50) at load 5.
    """

    kind: str
    workload: str
    mode: str
    batch: int
    ours_ms: float
    theirs_ms: float | None
    ratio: float | None
    plain_ms: float | None
    compile_s: float
    spread: float
    load: float
    calls: int
    threads: int
    device: str
    versions: str

    @property
    def steady(self) -> bool:
        """Whether the ratio may be quoted: `spread` is small."""
        return self.spread <= STEADY_SPREAD


def set_threads(threads: int) -> None:
    """Binds this process to `threads` cores: JAX's CPU backend starts as many threads.

    Call it before the first JAX computation; torch is told separately, by `torch_side.load`.

    Raises:
      ValueError: fewer cores are there.
    """
    if not 1 <= threads <= cores():
        raise ValueError(f"--threads expects 1 to {cores()}, the cores here. Got {threads}.")
    if threads < cores():
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def run(
    cases: Iterable[Case],
    *,
    against: str = "torch",
    with_plain: bool = True,
    calls: int = 30,
    threads: int | None = None,
) -> Iterator[Row]:
    """Yields a row a case, as each is done.

    Args:
      against: "torch" (eager, channels_last) or "none".
      with_plain: also the same model of flax's own layers.
      threads: of torch; default: as many as JAX has, the cores this process may use.

    Raises:
      ValueError: `against` is something else.
      ImportError: torch or timm is missing; the message has the command that installs them.
    """
    if against not in ("torch", "none"):
        raise ValueError(f"--against expects 'torch' or 'none'. Got {against!r}.")
    threads = threads or cores()
    torch = torch_side.load(threads) if against == "torch" else None
    versions = f"jax {jax.__version__}, flax {flax.__version__}"
    versions += f", {torch_side.versions()}" if torch else ""
    load = os.getloadavg()[0]
    for case in cases:
        sides = {"ours": jax_side.call(case)}
        if torch:
            sides["theirs"] = torch_side.call(torch, case)
        times = _times(sides, jax_side.call(case, as_plain=True) if with_plain else None, calls)
        yield _row(case, times, load=load, threads=threads, versions=versions)


def _times(
    sides: dict[str, jax_side.Call], plain: jax_side.Call | None, calls: int
) -> dict[str, measure.Latency]:
    """The sides in turn, `plain` among them or, when it is slow, once and before."""
    if plain is None:
        return measure.alternate(sides, calls=calls)
    once = measure.alternate({"plain": plain}, calls=1, warmup=1)
    if once["plain"].median_ms * calls > PLAIN_S * 1000:
        return measure.alternate(sides, calls=calls) | once
    return measure.alternate({**sides, "plain": plain}, calls=calls)


def _row(
    case: Case, times: dict[str, measure.Latency], *, load: float, threads: int, versions: str
) -> Row:
    ours = times["ours"]
    theirs_ms = times["theirs"].median_ms if "theirs" in times else None
    compared = [times[side] for side in ("ours", "theirs") if side in times]
    return Row(
        kind=case.kind,
        workload=case.workload,
        mode=case.mode,
        batch=case.batch,
        ours_ms=ours.median_ms,
        theirs_ms=theirs_ms,
        ratio=None if theirs_ms is None else theirs_ms / ours.median_ms,
        plain_ms=times["plain"].median_ms if "plain" in times else None,
        compile_s=max(0.0, ours.compile_s - ours.median_ms / 1000),
        spread=max(side.p90_ms / side.p10_ms for side in compared),
        load=load,
        calls=ours.calls,
        threads=threads,
        device=ours.device,
        versions=versions,
    )
