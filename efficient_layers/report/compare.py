# SPDX-License-Identifier: Apache-2.0
"""The page that sets many runs against each other: a Pareto plot of any two metrics, a table."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from efficient_layers.report import pareto, quantity
from efficient_layers.report.headline import binomial_interval
from efficient_layers.report.page import render
from efficient_layers.report.palette import DOMINATED, FRONT
from efficient_layers.report.runs import Metric, Run, collect, metrics
from efficient_layers.report.trade_off import TradeOff, sentences, trade_off, value_text

_LABELS_UP_TO = 14


def compare_page(
    reports: Sequence[dict[str, Any]],
    *,
    names: Sequence[str] | None = None,
    quality: str = "test_accuracy",
    x: str = "macs",
    y: str = "quality",
    reference: Mapping[str, float] | None = None,
) -> str:
    """One self-contained HTML page for many reports of schema 1.

    `x` and `y` are the axes shown first, of `quality`, `params`, `macs`, `weight_bytes`, `latency`;
    the reader can pick any two. `names` name the runs (default: each report's own). `reference`
    fixes the hypervolume's reference point by metric name; where it is silent the point is the
    worst of the runs pushed out by 10 % of their range. Raises ValueError for an unknown axis, the
    same axis twice, no reports, or a quality that no report holds.
    """
    from efficient_layers.report import chart  # brings Bokeh

    if not reports:
        raise ValueError("compare_page() needs at least one report; got none.")
    axes = metrics(quality)
    check_axes(x, y, tuple(axes))
    runs = collect(reports, names=names, quality=quality)
    pairs = {
        f"{a}|{b}": _pair(trade_off(runs, axes[a], axes[b], reference=reference))
        for a, b in itertools.permutations(axes, 2)
    }
    first = pairs[f"{x}|{y}"]
    plot = chart.scatter(first["points"], first["outline"], first["region"])
    plot.xaxis.axis_label, plot.yaxis.axis_label = first["x_label"], first["y_label"]
    return render(
        "compare.html",
        plots={"pareto": chart.item(plot)},
        data=pairs,
        title=f"{len(runs)} run{'s' if len(runs) > 1 else ''} compared",
        axes=axes,
        x=x,
        y=y,
        first=first,
        runs=runs,
        intervals={run.name: _interval(run, quality) for run in runs},
        devices=sorted({run.device for run in runs if run.device}),
    )


def check_axes(x: str, y: str, known: Sequence[str]) -> None:
    """Raise ValueError unless `x` and `y` are two different names of `known`."""
    for axis in (x, y):
        if axis not in known:
            raise ValueError(f"Unknown axis {axis!r}; choose one of {', '.join(known)}.")
    if x == y:
        raise ValueError(f"The two axes must differ; got {x!r} twice.")


def _pair(result: TradeOff) -> dict[str, Any]:
    """What page.js needs to show one pair of metrics; coordinates are in the axes' units."""
    corners = {result.points[name] for name in result.front}
    outline = pareto.staircase(corners, result.reference) if result.reference else []
    closed = [*outline, result.reference] if result.reference and outline else []
    scales = [_scale(m, [point[i] for point in closed]) for i, m in enumerate((result.x, result.y))]
    return {
        "points": _points(result, scales),
        "outline": {axis: [p[i] / scales[i][0] for p in outline] for i, axis in enumerate("xy")},
        "region": {axis: [p[i] / scales[i][0] for p in closed] for i, axis in enumerate("xy")},
        "front": result.front,
        "text": sentences(result),
        "x_label": _axis(result.x, scales[0][1]),
        "y_label": _axis(result.y, scales[1][1]),
    }


def _points(result: TradeOff, scales: list[tuple[float, str]]) -> dict[str, list[Any]]:
    names = list(result.points)
    xs, ys = ([result.points[name][i] for name in names] for i in (0, 1))
    middle = (min(xs) + max(xs)) / 2 if xs else 0.0
    on_front = [name in result.front for name in names]
    above = [front == result.y.maximise for front in on_front]  # labels lean away from the front
    shown = [front or len(names) <= _LABELS_UP_TO for front in on_front]
    return {
        "x": [value / scales[0][0] for value in xs],
        "y": [value / scales[1][0] for value in ys],
        "x_text": [value_text(result.x, value) for value in xs],
        "y_text": [value_text(result.y, value) for value in ys],
        "name": names,
        "label": [_short(n) if show else "" for n, show in zip(names, shown, strict=True)],
        "align": ["right" if value > middle else "left" for value in xs],
        "shift": [-8 if value > middle else 8 for value in xs],
        "drop": [-8 if up else 17 for up in above],
        "colour": [FRONT if front else DOMINATED for front in on_front],
        "alpha": [1.0 if front else 0.25 for front in on_front],
    }


def _scale(metric: Metric, values: list[float]) -> tuple[float, str]:
    """The unit of an axis: what to divide by, and its name."""
    largest = max((abs(value) for value in values), default=0.0)
    if metric.name == "quality":
        return (0.01, "%") if largest <= 1.5 else (1.0, "")
    if metric.name == "latency":
        return 1.0, "ms"
    for scale, decimal, binary in (
        (3, "billions", "GiB"),
        (2, "millions", "MiB"),
        (1, "thousands", "KiB"),
    ):
        base = 1024.0 if metric.name == "weight_bytes" else 1000.0
        if largest >= base**scale:
            return base**scale, binary if base == 1024 else decimal
    return 1.0, ""


def _short(name: str, limit: int = 24) -> str:
    return name if len(name) <= limit else f"{name[: limit - 1]}…"


def _axis(metric: Metric, unit: str) -> str:
    title = f"{metric.title}, {unit}" if unit else metric.title
    return f"{title} ({'more' if metric.maximise else 'less'} is better)"


def _interval(run: Run, quality: str) -> str:
    value = run.values.get("quality")
    if value is None or run.examples is None or not 0 <= value <= 1 or "accuracy" not in quality:
        return ""
    low, high = binomial_interval(value, run.examples)
    return f"{100 * low:.2f} to {100 * high:.2f}{quantity.percent(0)[-2:]}"
