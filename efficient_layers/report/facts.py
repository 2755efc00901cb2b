# SPDX-License-Identifier: Apache-2.0
"""Rows of name and value for the parts of a report with open keys: memory, training, config."""

import dataclasses
from typing import Any

from efficient_layers.report import quantity

_MEANING = {
    "seconds": "Steps, input and compilation; without evaluation and checkpoints.",
    "compile_s": "XLA's compilation; paid once, cached afterwards where a cache is set.",
    "examples_per_s": "Whole training steps; evaluation and checkpoints excluded.",
    "mfu": "Useful arithmetic done over what this device reached in a large matmul.",
    "input_wait": "Share of training time in which the step waited for data.",
    "peak_flops": "Best of a large matmul on this device: what MFU is measured against.",
    "aliased_bytes": "Inputs whose room the outputs reuse.",
    "weight_bytes": "The model's stored tensors alone.",
    "process_peak_bytes": "Most memory this process ever held, training included.",
    "bytes_accessed": "Reads and writes of one call, as the compiler estimates.",
    "fusions": "Groups of operations that run as one loop.",
    "int8_dots": "Matrix products that really ran on 8-bit integers.",
    "float_dots": "Matrix products and convolutions in floating point.",
    "instructions": "Operations left after the compiler optimised.",
    "custom_calls": "Calls into libraries, such as cuDNN or oneDNN.",
    "goodput": "Share of the wall clock that went into steps that were kept.",
    "peak_bytes": "Arguments, outputs and temporaries together.",
    "temporary_bytes": "Scratch space of the compiled program.",
    "argument_bytes": "Weights and input, resident before the call.",
    "output_bytes": "The answer.",
    "test_examples": "Examples in the test split; each counted once.",
}
_LABELS = {
    "seconds": "Time",
    "compile_s": "Compiling",
    "examples_per_s": "Examples per second",
    "mfu": "MFU",
    "peak_flops": "Peak FLOP/s here",
    "flops": "FLOPs",
    "dots": "Matrix products",
    "seconds_by_activity": "Time by activity",
    "argument_bytes": "Arguments",
    "output_bytes": "Outputs",
    "temporary_bytes": "Temporaries",
    "weight_bytes": "Weights",
}
_SHARES = {"mfu", "input_wait", "goodput"}


@dataclasses.dataclass(frozen=True)
class Fact:
    """One row: a readable label, the value as text, and what it means where that is known."""

    label: str
    value: str
    meaning: str = ""


def facts(section: Any, *, readable: bool = True) -> list[Fact]:
    """Rows of a JSON object; nested objects are joined by dots.

    With `readable`, values take the unit that their key names (`_bytes`, `_s`, `_ms`, shares) and
    unknown ones are left out; without, keys and values stand as they are (config, versions).
    """
    return [
        Fact(
            _label(path) if readable else path,
            _quantity(path, value) if readable else _verbatim(value),
            _MEANING.get(path.rpartition(".")[2], "") if readable else "",
        )
        for path, value in _leaves(section, "")
        if value is not None or not readable
    ]


def _leaves(section: Any, path: str) -> list[tuple[str, Any]]:
    if not isinstance(section, dict):
        return [(path or "value", section)] if section is not None or path else []
    found: list[tuple[str, Any]] = []
    for key, value in section.items():
        here = f"{path}.{key}" if path else str(key)
        found += _leaves(value, here) if isinstance(value, dict) and value else [(here, value)]
    return found


def _label(path: str) -> str:
    *outer, last = [_LABELS.get(key) or _words(key) for key in path.split(".")]
    label = f"{', '.join(outer)}: {last}" if outer else last
    return label[:1].upper() + label[1:]


def _words(key: str) -> str:
    words = key.replace("_", " ")
    for ending in (" bytes", " s", " ms"):
        if not words.endswith(" per s"):
            words = words.removesuffix(ending)
    return words


def _quantity(path: str, value: Any) -> str:
    key = path.rpartition(".")[2]
    if quantity.number(value) is None:
        return _verbatim(value)
    if key in _SHARES or "accuracy" in key:
        return quantity.percent(value, 2)
    if "bytes" in key:
        return quantity.size(value)
    if key.endswith("_ms"):
        return quantity.milliseconds(value)
    if "seconds" in path or (key.endswith("_s") and not key.endswith("per_s")):
        return quantity.seconds(value)
    if "flops" in key and value >= 1e6:
        return quantity.count(value)
    return quantity.exact(value) if isinstance(value, int) else quantity.digits(value, 4)


def _verbatim(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        return ", ".join(_verbatim(item) for item in value) or "none"
    if isinstance(value, dict):
        return "; ".join(f"{k}: {_verbatim(v)}" for k, v in value.items()) or "none"
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
