# SPDX-License-Identifier: Apache-2.0
"""Lengths of training in the unit a person thinks in: steps, epochs, examples or percent."""

import math
import re

_FORM = re.compile(r"\s*([0-9][0-9_]*\.?[0-9]*(?:e[0-9]+)?)\s*(%|[a-z]*)\s*", re.IGNORECASE)
_UNITS = {
    "": "step",
    "step": "step",
    "steps": "step",
    "epoch": "epoch",
    "epochs": "epoch",
    "example": "example",
    "examples": "example",
    "%": "percent",
    "percent": "percent",
}


def steps(
    value: int | str, *, steps_per_epoch: float, batch_size: int, total_steps: int | None = None
) -> int:
    """The number of optimiser steps that `value` stands for.

    `value` is a count of steps (`500`, `"500 steps"`), epochs (`"30 epochs"`, `"0.5 epochs"`),
    examples (`"200000 examples"`) or a share of the whole run (`"90%"`). Fractions are rounded to
    the nearest step, and a length above zero is at least one step.

    Raises:
      TypeError: `value` is neither an integer nor text.
      ValueError: the text has no such form, or the unit needs a size that is not known here.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError(
            "a duration is an int (steps) or text such as '500 steps', '30 epochs', "
            f"'200000 examples', '90%'. Got {value!r} of type {type(value).__name__}."
        )
    number, unit = _parse(str(value))
    if unit == "step":
        exact = number
    elif unit == "epoch":
        exact = number * _positive("steps_per_epoch", steps_per_epoch, value)
    elif unit == "example":
        exact = number / _positive("batch_size", batch_size, value)
    else:
        exact = _share(number, total_steps, value)
    return max(math.floor(exact + 0.5), 1) if number > 0 else 0


def _parse(text: str) -> tuple[float, str]:
    """`"30 epochs"` -> (30.0, "epoch")."""
    match = _FORM.fullmatch(text)
    if not match or match[2].lower() not in _UNITS:
        raise ValueError(
            "a duration must look like '500 steps', '30 epochs', '200000 examples' or '90%', "
            f"and not be negative. Got {text!r}."
        )
    return float(match[1].replace("_", "")), _UNITS[match[2].lower()]


def _positive(name: str, size: float, value: int | str) -> float:
    if size <= 0:
        raise ValueError(f"duration {value!r} needs {name} > 0. Got {name}={size}.")
    return size


def _share(number: float, total_steps: int | None, value: int | str) -> float:
    if total_steps is None:
        raise ValueError(
            f"duration {value!r} is a share of the whole run, whose length is not known here; "
            "give it in steps, epochs or examples."
        )
    if number > 100:
        raise ValueError(f"duration {value!r} is longer than the whole run (100%).")
    return number / 100 * total_steps
