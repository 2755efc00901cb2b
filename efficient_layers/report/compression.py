# SPDX-License-Identifier: Apache-2.0
"""What a compression did to a model: the verdict, before and after, and a row a module."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from efficient_layers.report import quantity

_SIZES: dict[str, tuple[str, Callable[[Any], str]]] = {
    "params": ("Parameters", quantity.count),
    "weight_bytes": ("Weights", quantity.size),
    "macs": ("MACs", quantity.count),
}


@dataclasses.dataclass(frozen=True)
class Line:
    """One quantity before and after; `change` is empty where a ratio would say nothing."""

    label: str
    before: str
    after: str
    change: str = ""


def lines(compression: Mapping[str, Any]) -> list[Line]:
    """The table of a report's section "compression"; empty where it has no verdict."""
    verdict = _side(compression, "verdict")
    before, after = _side(verdict, "before"), _side(verdict, "after")
    rows = [
        _line(label, before.get(name), after.get(name), show)
        for name, (label, show) in _SIZES.items()
    ]
    if packed := compression.get("packed_bytes"):
        rows.append(_line("Packed file", before.get("weight_bytes"), packed, quantity.size))
    timed = _side(before, "latency_ms")
    rows += [
        _line(f"Latency, batch {b}", ms, _side(after, "latency_ms").get(b), quantity.milliseconds)
        for b, ms in timed.items()
    ]
    for name, label in (("dots", "Matrix products run"), ("convolutions", "Convolutions run")):
        rows.append(Line(label, _counts(before.get(name)), _counts(after.get(name))))
    old, new = _side(before, "quality"), _side(after, "quality")
    for name in dict.fromkeys([*old, *new]):
        label = name.replace("_", " ").capitalize()
        rows.append(_line(label, old.get(name), new.get(name), quantity.digits, ratio=False))
    return rows if verdict else []


def _line(
    label: str, before: Any, after: Any, show: Callable[[Any], str], *, ratio: bool = True
) -> Line:
    one, other = quantity.number(before), quantity.number(after)
    change = f"{one / other:.2f} times less" if ratio and one and other and one != other else ""
    if ratio and one and other and other > one:
        change = f"{other / one:.2f} times more"
    return Line(label, show(before), show(after), change)


def _side(part: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = part.get(name)
    return found if isinstance(found, Mapping) else {}


def _counts(found: Any) -> str:
    if not isinstance(found, Mapping) or not found:
        return quantity.MISSING
    return ", ".join(f"{n} {kind}" for kind, n in sorted(found.items()))
