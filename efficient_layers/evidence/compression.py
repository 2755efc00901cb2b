# SPDX-License-Identifier: Apache-2.0
"""What recipes do to the models of one experiment, over several seeds: tables of docs/compress.

    WORKDIRS/seed-0/base/        the run of the configuration
    WORKDIRS/seed-0/int8/        the recipe's workdir, its phases below it
    NAME.json, NAME.md           a record a seed and recipe, and the table made of all of them

Runs that are done are not done again, so an interrupted measurement goes on.
"""

import dataclasses
import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from efficient_layers import measure, train
from efficient_layers.measure.latency import STEADY_SPREAD


@dataclasses.dataclass(frozen=True)
class Record:
    """One recipe on the model of one seed. Ratios are before / after: above 1 is an improvement.

    `before` and `after` are the metric on the test split, `packed` is None without a packed file,
    `ran` the operand types of the compiled products and convolutions.
    """

    recipe: str
    seed: int
    before: float
    after: float
    bytes: float
    macs: float
    packed: float | None
    speed: dict[str, float]
    ran: tuple[str, ...]
    words: str
    spread: float  # of the timed calls, p90 / p10


def run(
    config: ConfigDict,
    recipes: Mapping[str, ConfigDict],
    seeds: Iterable[int],
    workdirs: Path,
    *,
    metric: str = "test_accuracy",
    time_again: bool = False,
    say: Callable[[str], None] = print,
) -> list[Record]:
    """Trains `config` for each seed, runs every recipe on each result, and reads the reports.

    `time_again` measures the latency of finished results anew, on a quieter machine say.

    Raises:
      ValueError: what the runs refuse; a metric that the reports do not have.
      RuntimeError: a run was interrupted (SIGTERM): the same call goes on.
    """
    records = []
    for seed in seeds:
        base = workdirs / f"seed-{seed}" / "base"
        with config.unlocked():
            config.seed = seed
        if not (base / "report.json").exists():
            say(f"seed {seed}: training {base}")
            _whole(train.train(config, base))
        for name, recipe in recipes.items():
            out = workdirs / f"seed-{seed}" / name
            if "compression" not in _report(out):
                say(f"seed {seed}: {name}")
                _whole(train.run_recipe(base, recipe, out, say=say))
            elif time_again:
                train.judge_again(out)
            records.append(record(name, seed, _report(out), metric))
            say(f"seed {seed}: {name}: {records[-1].before:.4f} -> {records[-1].after:.4f}")
    return records


def record(name: str, seed: int, report: Mapping[str, Any], metric: str) -> Record:
    """The record of a compressed workdir's report.

    Raises:
      ValueError: the report has no such metric.
    """
    part = report["compression"]
    verdict = part["verdict"]
    before, after = verdict["before"], verdict["after"]
    if metric not in before["quality"] or metric not in after["quality"]:
        raise ValueError(f"{metric!r} is not in the reports: {', '.join(after['quality'])}.")
    packed = part.get("packed_bytes")
    return Record(
        recipe=name,
        seed=seed,
        before=before["quality"][metric],
        after=after["quality"][metric],
        bytes=verdict["smaller"],
        macs=before["macs"] / after["macs"],
        packed=before["weight_bytes"] / packed if packed else None,
        speed=verdict["faster"],
        ran=tuple(sorted({*after["dots"], *after["convolutions"]})),
        words=verdict["words"].split(":")[0],
        spread=verdict["spread"],
    )


def write(records: Sequence[Record], file: Path, title: str, command: str) -> None:
    """Writes FILE.json and FILE.md."""
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = [dataclasses.asdict(row) for row in records]
    file.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    file.with_suffix(".md").write_text(markdown(records, title, command), encoding="utf-8")


def markdown(records: Sequence[Record], title: str, command: str) -> str:
    """A row a recipe: mean and standard deviation over the seeds."""
    surroundings = measure.environment()
    batches = list(records[0].speed)
    heads = ["recipe", "seeds", "before", "after", "points", "bytes", "packed", "MACs"]
    heads += [f"speed, batch {batch}" for batch in batches]
    lines = [
        f"# {title}",
        "",
        f"`{command}`",
        "",
        "Test accuracy in percent, mean and standard deviation over the seeds; points: after - "
        "before of the same seed. bytes, packed (a Huffman-coded file), MACs: before / after. "
        "speed: median time before / after, calls in turn, geometric mean over the seeds; ? where "
        "the calls of a seed were unsteady (p90 above twice p10).",
        "",
        _line([*heads, "runs as"]),
        _line("---" for _ in [*heads, "runs as"]),
    ]
    for name in dict.fromkeys(row.recipe for row in records):
        rows = [row for row in records if row.recipe == name]
        packed = [row.packed for row in rows if row.packed is not None]
        cells = [
            name,
            ", ".join(str(row.seed) for row in rows),
            _spread([100 * row.before for row in rows]),
            _spread([100 * row.after for row in rows]),
            _spread([100 * (row.after - row.before) for row in rows], sign="+"),
            f"{statistics.mean(row.bytes for row in rows):.2f}",
            f"{statistics.mean(packed):.2f}" if packed else "-",
            f"{statistics.mean(row.macs for row in rows):.2f}",
        ]
        doubt = " ?" if max(row.spread for row in rows) > STEADY_SPREAD else ""
        speeds = [statistics.geometric_mean([r.speed[b] for r in rows]) for b in batches]
        cells += [f"{speed:.2f}{doubt}" for speed in speeds]
        lines.append(_line([*cells, ", ".join(rows[0].ran)]))
    device, date = surroundings["device"], surroundings["date"][:10]
    versions = ", ".join(f"{k} {surroundings['packages'][k]}" for k in ("jax", "flax"))
    return "\n".join([*lines, "", f"{date}; {device}; {versions}.", ""])


def _spread(values: Sequence[float], sign: str = "") -> str:
    mean = f"{statistics.mean(values):{sign}.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def _report(workdir: Path) -> Mapping[str, Any]:
    file = workdir / "report.json"
    return measure.read_report(file) if file.exists() else {}


def _whole(result: train.Result) -> None:
    if result.report is None:
        raise RuntimeError(f"Interrupted ({result.reason}). Run the same command to go on.")


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
