# SPDX-License-Identifier: Apache-2.0
"""From a run's history (a list of records with "step") to the panels that a page draws."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from efficient_layers.report import quantity

MAX_POINTS = 600
"""Points drawn per curve; a longer one keeps the lowest and highest of each stretch."""

_SPLITS = ("train", "validation", "test")
_KNOWN = {  # metric -> (title, caption); the order of the page
    "loss": (
        "Loss",
        "What training makes small. Validation rising while train falls: overfitting.",
    ),
    "cross_entropy": ("Cross-entropy", "The loss without smoothing or penalties."),
    "accuracy": ("Accuracy", "Share of examples classified correctly."),
    "top5_accuracy": (
        "Top-5 accuracy",
        "Share of examples whose class is among the five likeliest.",
    ),
    "learning_rate": ("Learning rate", "Size of the optimiser's steps, as scheduled."),
    "grad_norm": ("Gradient norm", "Length of the gradient; spikes announce trouble."),
    "param_norm": ("Parameter norm", "Length of all weights as one vector."),
    "update_norm": ("Update norm", "Length of a step in weight space."),
    "examples_per_s": (
        "Examples per second",
        "Whole training steps; evaluation and saves excluded.",
    ),
    "input_wait": (
        "Input wait",
        "Share of the time that the step waited for data; lower is better.",
    ),
    "mfu": ("MFU", "Useful arithmetic over what this device reached in a large matmul."),
}
_CAPTION_OTHER = "As recorded by the run."
_NOT_CURVES = {
    *("step", "epoch", "time", "seconds", "timestamp", "examples", "wall_time", "elapsed_s"),
    *("step_ms", "goodput", "peak_rss_bytes"),  # examples_per_s and the facts say these
}
MAX_PANELS = 10


@dataclasses.dataclass(frozen=True)
class Series:
    """One curve: `name` is the split, or "" where the metric has none."""

    name: str
    steps: tuple[float, ...]
    values: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Panel:
    """The curves of one metric, drawn into one plot."""

    metric: str
    title: str
    caption: str
    series: tuple[Series, ...]


def panels(history: Any) -> tuple[list[Panel], list[str]]:
    """Panels of a history, known metrics first, and the names of curves that found no room.

    Records may hold any metrics, at any steps; what is not a finite number is a gap. Anything that
    is not a list of records gives no panels.
    """
    grouped: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for record in history if isinstance(history, list | tuple) else ():
        for split, metric, step, value in _points(record):
            grouped.setdefault(metric, {}).setdefault(split, []).append((step, value))
    order = [m for m in _KNOWN if m in grouped] + sorted(m for m in grouped if m not in _KNOWN)
    drawn = [_panel(metric, grouped[metric]) for metric in order[:MAX_PANELS]]
    return drawn, order[MAX_PANELS:]


def thin(
    points: Sequence[tuple[float, float]], limit: int = MAX_POINTS
) -> list[tuple[float, float]]:
    """At most `limit` (>= 4) of the points: both ends, and the extremes of each stretch between."""
    if len(points) <= limit:
        return list(points)
    inner = points[1:-1]
    stretches = (limit - 2) // 2
    kept = [points[0]]
    for i in range(stretches):
        part = inner[i * len(inner) // stretches : (i + 1) * len(inner) // stretches]
        low, high = min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])
        kept.extend(sorted({low, high}))
    return [*kept, points[-1]]


def _points(record: Any) -> Iterable[tuple[str, str, float, float]]:
    step = quantity.number(record.get("step")) if isinstance(record, dict) else None
    if step is None:
        return
    for key, raw in record.items():
        value = quantity.number(raw)
        split, _, metric = str(key).rpartition("/")
        if value is not None and metric not in _NOT_CURVES:
            yield split, metric, step, value


def _panel(metric: str, by_split: dict[str, list[tuple[float, float]]]) -> Panel:
    title, caption = _KNOWN.get(metric, (metric.replace("_", " ").capitalize(), _CAPTION_OTHER))
    names = [s for s in _SPLITS if s in by_split] + sorted(s for s in by_split if s not in _SPLITS)
    series = []
    for name in names:
        points = thin(sorted(by_split[name]))
        series.append(Series(name, tuple(p[0] for p in points), tuple(p[1] for p in points)))
    return Panel(metric, title, caption, tuple(series))
