# SPDX-License-Identifier: Apache-2.0
"""The figures a reader wants first, each with a sentence that says what it is."""

import dataclasses
from typing import Any

from scipy import special

from efficient_layers.report import quantity
from efficient_layers.report.file import section


@dataclasses.dataclass(frozen=True)
class Card:
    """One headline figure; without one, `value` is the missing sign and `note` may say why."""

    label: str
    value: str
    note: str
    detail: str = ""

    @property
    def missing(self) -> bool:
        return self.value == quantity.MISSING


def binomial_interval(
    proportion: float, examples: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Exact (Clopper-Pearson) interval of a success rate seen on `examples` independent trials.

    Reference: Clopper and Pearson, "The Use of Confidence or Fiducial Limits Illustrated in the
    Case of the Binomial", Biometrika 26, 1934. `proportion * examples` is rounded to the nearest
    count. Raises ValueError for a proportion outside [0, 1] or no examples.
    """
    if examples < 1 or not 0 <= proportion <= 1:
        raise ValueError(
            f"binomial_interval needs 0 <= proportion <= 1 and examples >= 1; "
            f"got {proportion} and {examples}."
        )
    right = round(proportion * examples)
    tail = (1 - confidence) / 2
    low = special.betaincinv(right, examples - right + 1, tail) if right > 0 else 0.0
    high = special.betaincinv(right + 1, examples - right, 1 - tail) if right < examples else 1.0
    return float(low), float(high)


def interval(quality: dict[str, Any], metric: str = "test_accuracy") -> tuple[float, float] | None:
    """The exact interval of an accuracy in `quality`, or None where it cannot be given."""
    value = quantity.number(quality.get(metric))
    examples = quantity.number(quality.get("test_examples"))
    if value is None or examples is None or examples < 1 or not 0 <= value <= 1:
        return None
    if not metric.startswith("test_") or "accuracy" not in metric:
        return None
    return binomial_interval(value, int(examples))


def cards(report: dict[str, Any]) -> list[Card]:
    """The cards of one run, in reading order: quality, size, work, speed, training."""
    cost, training = section(report, "cost"), section(report, "training")
    return [
        _accuracy(section(report, "quality")),
        Card(
            "Parameters",
            quantity.count(cost.get("params")),
            "Trainable numbers in the model.",
            _in_full(cost.get("params"), ""),
        ),
        Card(
            "MACs",
            quantity.count(cost.get("macs")),
            "Multiply-adds to answer one example.",
            _in_full(cost.get("macs"), ""),
        ),
        Card(
            "Weights",
            quantity.size(cost.get("weight_bytes")),
            "Room the stored tensors take.",
            _in_full(cost.get("weight_bytes"), " bytes"),
        ),
        _latency(section(report, "latency")),
        Card(
            "Training time",
            quantity.seconds(training.get("seconds")),
            "Steps, input and compilation; without evaluation and checkpoints.",
            _in_full(training.get("steps"), " steps"),
        ),
        Card(
            "Training speed",
            quantity.count(training.get("examples_per_s")),
            "Examples a second through whole training steps.",
            "examples/s",
        ),
    ]


def _accuracy(quality: dict[str, Any]) -> Card:
    value = quantity.number(quality.get("test_accuracy"))
    bounds = interval(quality)
    if value is None:
        return Card("Test accuracy", quantity.MISSING, "The report holds no test_accuracy.")
    if bounds is None:
        note = "Share of test examples classified correctly; no test_examples, so no interval."
        return Card("Test accuracy", quantity.percent(value, 2), note)
    examples = int(quality["test_examples"])
    return Card(
        "Test accuracy",
        quantity.percent(value, 2),
        f"{round(value * examples):,} of {examples:,} test examples right. With so many examples, "
        "the true rate may lie anywhere in the interval (exact, binomial).",
        f"95 % interval {100 * bounds[0]:.2f} to {100 * bounds[1]:.2f} %",
    )


def _latency(latency: dict[str, Any]) -> Card:
    one = section(section(latency, "batch"), "1")
    note = "Median time to answer a single example, warm."
    p90 = quantity.milliseconds(one.get("p90_ms"))
    detail = "" if p90 == quantity.MISSING else f"90 % within {p90}"
    return Card("Latency", quantity.milliseconds(one.get("median_ms")), note, detail)


def _in_full(value: Any, unit: str) -> str:
    text = quantity.exact(value)
    return "" if text == quantity.MISSING else text + unit
