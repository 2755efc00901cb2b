# SPDX-License-Identifier: Apache-2.0
"""Runs to compare: what a Pareto plot needs of a report, under a name that no other run has."""

import dataclasses
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from efficient_layers.report import quantity
from efficient_layers.report.file import section


@dataclasses.dataclass(frozen=True)
class Metric:
    """One axis of the comparison; `title` stands on axes, `head` over columns of a terminal."""

    name: str
    title: str
    head: str
    maximise: bool


@dataclasses.dataclass(frozen=True)
class Run:
    """One run: its unique name, model, and the value of every metric that its report holds."""

    name: str
    model: str
    values: dict[str, float]
    examples: int | None
    seconds: float | None
    device: str

    def text(self, metric: str) -> str:
        """The value as people read it."""
        value = self.values.get(metric)
        if metric == "quality":
            share = value is not None and 0 <= value <= 1
            return quantity.percent(value, 2) if share else quantity.digits(value, 4)
        if metric == "weight_bytes":
            return quantity.size(value)
        return quantity.milliseconds(value) if metric == "latency" else quantity.count(value)


def metrics(quality: str = "test_accuracy") -> dict[str, Metric]:
    """The metrics a reader can put on an axis, by name; of losses and errors less is better."""
    more_is_better = not any(word in quality for word in ("loss", "error", "perplexity"))
    title = quality.replace("_", " ").capitalize()
    found = [
        Metric("quality", title, title, more_is_better),
        Metric("params", "Parameters", "Params", False),
        Metric("macs", "MACs", "MACs", False),
        Metric("weight_bytes", "Weight bytes", "Weights", False),
        Metric("latency", "Latency, batch 1", "Latency", False),
    ]
    return {metric.name: metric for metric in found}


def collect(
    reports: Sequence[dict[str, Any]],
    *,
    names: Sequence[str] | None = None,
    quality: str = "test_accuracy",
) -> list[Run]:
    """One `Run` a report, in order. A name (default: the report's own) that is taken gets a number.

    Raises ValueError where `names` has another length, or no report holds the quality asked for.
    """
    names = [_own_name(report) for report in reports] if names is None else list(names)
    if len(names) != len(reports):
        raise ValueError(f"Got {len(names)} names for {len(reports)} reports; give one each.")
    runs = [
        _run(name, report, quality) for name, report in zip(_unique(names), reports, strict=True)
    ]
    if runs and not any("quality" in run.values for run in runs):
        known = sorted({key for report in reports for key in section(report, "quality")})
        raise ValueError(f"No report holds quality {quality!r}; the reports hold {known}.")
    return runs


def folder_names(folders: Sequence[str]) -> list[str]:
    """The shortest ends of the paths that tell folders apart: a/runs/b3, a/runs/b5 -> b3, b5."""
    parts = [PurePath(folder).parts for folder in folders]
    depth = 1
    while len({p[-depth:] for p in parts}) < len(set(parts)):
        depth += 1
    return ["/".join(p[-depth:]) for p in parts]


def _run(name: str, report: dict[str, Any], quality: str) -> Run:
    cost, latency = section(report, "cost"), section(report, "latency")
    one = section(section(latency, "batch"), "1")
    raw = {
        "quality": section(report, "quality").get(quality),
        "latency": one.get("median_ms"),
        **{key: cost.get(key) for key in ("params", "macs", "weight_bytes")},
    }
    values = {key: number for key, v in raw.items() if (number := quantity.number(v)) is not None}
    examples = quantity.number(section(report, "quality").get("test_examples"))
    return Run(
        name=name,
        model=str(report.get("model", "")),
        values=values,
        examples=int(examples) if examples else None,
        seconds=quantity.number(section(report, "training").get("seconds")),
        device=str(latency.get("device") or ""),
    )


def _own_name(report: dict[str, Any]) -> str:
    return str(report.get("name") or report.get("model") or "run")


def _unique(names: Sequence[str]) -> list[str]:
    taken: set[str] = set()
    result = []
    for name in names:
        label, copy = name, 2
        while label in taken:
            label, copy = f"{name} ({copy})", copy + 1
        taken.add(label)
        result.append(label)
    return result
