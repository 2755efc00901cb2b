# SPDX-License-Identifier: Apache-2.0
"""The verdict: is the compressed model smaller, and is it faster, on this device?"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from efficient_layers.measure.cost import cost
from efficient_layers.measure.environment import device_name
from efficient_layers.measure.executed import Executed, executed
from efficient_layers.measure.latency import STEADY_SPREAD, alternate, caller
from efficient_layers.measure.program import compiled_view
from efficient_layers.measure.view import resized, view

# A ratio of medians nearer to 1 than this is noise on a shared machine.
NOISE = 0.05


@dataclasses.dataclass(frozen=True)
class Facts:
    """One side of the comparison.

    `params`, `macs` and `weight_bytes` as `el.measure.cost` counts them, `dots` and `convolutions`
    by type as `el.measure.executed` does, at the smallest batch. `latency_ms`: medians by batch.
    """

    params: int
    macs: int
    weight_bytes: int
    dots: dict[str, int]
    convolutions: dict[str, int]
    latency_ms: dict[str, float]
    quality: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A model before and after, measured on one device in one run; `str` says it in words.

    `spread` is the largest p90 / p10 of the timed calls of either side.
    """

    before: Facts
    after: Facts
    device: str
    spread: float = 1.0

    @property
    def smaller(self) -> float:
        """Stored bytes before / after."""
        return self.before.weight_bytes / max(1, self.after.weight_bytes)

    @property
    def faster(self) -> dict[str, float]:
        """Batch size -> median time before / after, of calls made alternately."""
        after = self.after.latency_ms
        return {batch: ms / after[batch] for batch, ms in self.before.latency_ms.items()}

    @property
    def words(self) -> str:
        """The verdict in a sentence; within 5 % counts as no change."""
        ratios = self.faster
        won = [batch for batch, ratio in ratios.items() if ratio >= 1 + NOISE]
        speed = ", ".join(f"{ratio:.2f}x the speed at batch {b}" for b, ratio in ratios.items())
        smaller = self.smaller >= 1 + NOISE
        if smaller and len(won) == len(ratios):
            said = "smaller and faster here"
        elif smaller and won:
            said = f"smaller, and faster here at batch {', '.join(won)} only"
        elif smaller:
            said = "smaller but not faster here"
        elif won:
            said = f"not smaller, but faster here at batch {', '.join(won)}"
        else:
            said = "neither smaller nor faster here"
        doubt = "" if self.spread <= STEADY_SPREAD else "; times unsteady, measure again when quiet"
        return f"{said}: {self.smaller:.2f}x fewer bytes, {speed} ({self.device}{doubt})"

    def to_json(self) -> dict[str, Any]:
        """Both sides, the ratios and the words."""
        computed = {"smaller": self.smaller, "faster": self.faster, "words": self.words}
        return {**dataclasses.asdict(self), **computed}

    def __str__(self) -> str:
        before, after = self.before, self.after
        lines = [self.words]
        for name in ("params", "macs", "weight_bytes"):
            lines.append(f"  {name}: {getattr(before, name):,} -> {getattr(after, name):,}")
        for batch, ms in before.latency_ms.items():
            lines.append(f"  latency, batch {batch}: {ms:.3g} -> {after.latency_ms[batch]:.3g} ms")
        for name in ("dots", "convolutions"):
            lines.append(
                f"  {name}: {_counts(getattr(before, name))} -> {_counts(getattr(after, name))}"
            )
        for name in before.quality.keys() | after.quality.keys():
            sides = (side.quality.get(name) for side in (before, after))
            lines.append(
                f"  {name}: " + " -> ".join("-" if v is None else f"{v:.4f}" for v in sides)
            )
        return "\n".join(lines)


def compare(
    before: nnx.Module,
    after: nnx.Module,
    x: Any,
    *,
    batches: Sequence[int] = (1,),
    quality: tuple[Mapping[str, float], Mapping[str, float]] = ({}, {}),
    calls: int = 30,
) -> Verdict:
    """Measures two models on inputs like `x`; their calls alternate, so a slow minute slows both.

    Args:
      x: an example with a leading batch axis; its rows are repeated to fill each of `batches`.
      quality: metrics of the two, found by the caller.

    Raises:
      ValueError: `batches` is empty or holds a size below 1.
    """
    if not batches or min(batches) < 1:
        raise ValueError(f"compare expects batch sizes of at least 1. Got {batches!r}.")
    models = {"before": before, "after": after}
    ran: dict[str, Executed] = {}
    spread = 1.0
    medians: dict[str, dict[str, float]] = {}
    for size in sorted(set(batches)):
        programs = {name: compiled_view(m, resized(x, size)) for name, m in models.items()}
        ran = ran or {name: executed(program) for name, program in programs.items()}
        times = alternate({name: caller(p) for name, p in programs.items()}, calls=calls)
        medians[str(size)] = {name: time.median_ms for name, time in times.items()}
        spread = max(spread, *(time.p90_ms / time.p10_ms for time in times.values()))
    sides = []
    for (name, model), found in zip(models.items(), quality, strict=True):
        counted = cost(model, resized(x, 1))
        sides.append(
            Facts(
                params=counted.params,
                macs=counted.macs,
                weight_bytes=counted.weight_bytes,
                dots=ran[name].dots,
                convolutions=ran[name].convolutions,
                latency_ms={size: ms[name] for size, ms in medians.items()},
                quality={key: float(value) for key, value in found.items()},
            )
        )
    return Verdict(sides[0], sides[1], device_name(), spread)


def mean_loss(model: nnx.Module, batches: Iterable, loss: Any) -> float:
    """The mean of `loss(model, batch)` over the batches, in eval mode."""
    graphdef, state = nnx.split(view(model))
    run = jax.jit(lambda state, batch: loss(nnx.merge(graphdef, state, copy=True), batch))
    return float(jnp.stack([jnp.asarray(run(state, batch)) for batch in batches]).mean())


def _counts(found: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {kind}" for kind, n in sorted(found.items())) or "none"
