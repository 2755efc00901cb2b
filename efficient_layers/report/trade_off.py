# SPDX-License-Identifier: Apache-2.0
"""Two metrics of many runs against each other: the front, who dominates whom, the hypervolume."""

import dataclasses
from collections.abc import Mapping, Sequence

from efficient_layers.report import pareto, quantity
from efficient_layers.report.runs import Metric, Run


@dataclasses.dataclass(frozen=True)
class TradeOff:
    """The Pareto analysis of one pair of metrics over the runs that have both.

    `hypervolume` is in the product of the metrics' units, bounded by `reference`; `share` is that
    volume over the box from the reference to the best value seen of each metric. `missing` names
    the runs left out for want of a value.
    """

    x: Metric
    y: Metric
    points: dict[str, tuple[float, float]]
    front: list[str]
    dominated: dict[str, list[str]]
    reference: tuple[float, float] | None
    hypervolume: float
    share: float
    missing: list[str]


def trade_off(
    runs: Sequence[Run], x: Metric, y: Metric, *, reference: Mapping[str, float] | None = None
) -> TradeOff:
    """Analyse `runs` on metrics `x` and `y`.

    The reference point is the worst value of the runs, pushed out by 10 % of their range
    (`pareto.nadir`), unless `reference` gives a value by metric name.
    """
    points = {
        run.name: (run.values[x.name], run.values[y.name])
        for run in runs
        if x.name in run.values and y.name in run.values
    }
    missing = [run.name for run in runs if run.name not in points]
    maximise = (x.maximise, y.maximise)
    bound = _reference(points, (x, y), reference or {}) if points else None
    volume, share = _volume(points, bound, maximise) if bound else (0.0, 0.0)
    return TradeOff(
        x=x,
        y=y,
        points=points,
        front=pareto.front(points, maximise=maximise),
        dominated=pareto.dominated(points, maximise=maximise),
        reference=bound,
        hypervolume=volume,
        share=share,
        missing=missing,
    )


def sentences(result: TradeOff) -> dict[str, list[str]]:
    """The analysis in words: lines for the front, the dominated runs, and the hypervolume."""
    x, y = result.x, result.y
    ordered = sorted((result.points[name], name) for name in result.front)
    front = [f"{name}: {value_text(y, b)} at {value_text(x, a)}" for (a, b), name in ordered]
    beaten = [f"{name}: by {', '.join(by)}" for name, by in result.dominated.items()]
    left_out = [f"{name}: left out, one of the two values is missing" for name in result.missing]
    if result.reference is None:
        return {"front": ["No run has both values."], "dominated": left_out, "volume": ["none"]}
    bound = [value_text(m, value) for m, value in zip((x, y), result.reference, strict=True)]
    volume = [
        f"{quantity.percent(result.share)} of the box",
        f"{quantity.digits(result.hypervolume, 4)} in units of {y.title} \u00d7 {x.title}",
        f"reference point: {', '.join(bound)}",
    ]
    return {"front": front, "dominated": (beaten or ["none"]) + left_out, "volume": volume}


def value_text(metric: Metric, value: float) -> str:
    """A value of `metric` with its unit, as people read it."""
    text = Run("", "", {metric.name: value}, None, None, "").text(metric.name)
    unit = {"params": " parameters", "macs": " MACs"}.get(metric.name, "")
    return text + unit


def _reference(
    points: Mapping[str, tuple[float, float]],
    metrics: tuple[Metric, Metric],
    given: Mapping[str, float],
) -> tuple[float, float]:
    worst = pareto.nadir(points.values(), maximise=[metric.maximise for metric in metrics])
    x, y = (given.get(m.name, value) for m, value in zip(metrics, worst, strict=True))
    return float(x), float(y)


def _volume(
    points: Mapping[str, tuple[float, float]],
    reference: tuple[float, float],
    maximise: tuple[bool, bool],
) -> tuple[float, float]:
    volume = pareto.hypervolume(points.values(), reference, maximise=maximise)
    columns = zip(*points.values(), strict=True)
    best = [max(c) if up else min(c) for c, up in zip(columns, maximise, strict=True)]
    box = pareto.hypervolume([best], reference, maximise=maximise)
    return volume, volume / box if box else 0.0
