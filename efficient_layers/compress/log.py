# SPDX-License-Identifier: Apache-2.0
"""What a compression did: a row a module, totals before and after, and the edits."""

import dataclasses
from typing import Any

from flax import nnx

from efficient_layers.compress.technique import Edit
from efficient_layers.compress.verdict import Verdict
from efficient_layers.measure.tensors import tensors_of


@dataclasses.dataclass(frozen=True)
class Size:
    """Trainable parameters and stored bytes, as `el.measure.cost` counts them."""

    params: int
    bytes: int

    @classmethod
    def of(cls, module: nnx.Module) -> "Size":
        tensors = tensors_of(nnx.state(module))
        return cls(sum(t.params for t in tensors), sum(t.weight_bytes for t in tensors))


@dataclasses.dataclass(frozen=True)
class Row:
    """One module that a step matched. `step` is the step as text, `number` its place."""

    number: int
    step: str
    path: str
    touched: bool
    why: str
    before: Size
    after: Size


@dataclasses.dataclass
class Log:
    """Of one `apply`: `str(log)` is a table, `log.to_json()` goes into a file.

    `macs_before` and `macs_after` are of the example, batch 1, where one was given. `edits`, in
    order, rebuild the model's structure: `el.compress.rebuild(base, log.edits)`. `verdict` says
    whether the result is smaller and faster on this device, where `apply` measured it.
    """

    rows: list[Row] = dataclasses.field(default_factory=list)
    edits: list[Edit] = dataclasses.field(default_factory=list)
    before: Size = Size(0, 0)
    after: Size = Size(0, 0)
    macs_before: int | None = None
    macs_after: int | None = None
    verdict: Verdict | None = None

    def touched(self) -> list[Row]:
        return [row for row in self.rows if row.touched]

    def skipped(self) -> list[Row]:
        return [row for row in self.rows if not row.touched]

    def to_json(self) -> dict[str, Any]:
        """Plain lists, dicts and numbers."""
        plain = dataclasses.asdict(dataclasses.replace(self, verdict=None))
        return plain | {"verdict": self.verdict and self.verdict.to_json()}

    def __str__(self) -> str:
        """The touched modules a line each; the skipped ones of a step by reason."""
        lines = []
        for number, step in dict.fromkeys((row.number, row.step) for row in self.rows):
            lines += [step, *_step([row for row in self.rows if row.number == number])]
        total = f"total: {_change(self.before, self.after)}"
        if self.macs_before is not None and self.macs_after is not None:
            ratio = _ratio(self.macs_before, self.macs_after)
            total += f", MACs {self.macs_before:,} -> {self.macs_after:,}{ratio}"
        said = [f"verdict: {self.verdict}"] if self.verdict else []
        return "\n".join([*lines, total, *said])


_SHOWN = 3  # paths of those skipped for one reason


def _step(rows: list[Row]) -> list[str]:
    touched = [row for row in rows if row.touched]
    width = max((len(row.path) for row in touched), default=0)
    lines = [f"  {r.path:{width}}  {_change(r.before, r.after)}  {r.why}" for r in touched]
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if not row.touched:
            reasons.setdefault(row.why, []).append(row.path or "(root)")
    for why, paths in reasons.items():
        more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
        lines.append(f"  skipped: {', '.join(paths[:_SHOWN])}{more}: {why}")
    return lines


def _change(before: Size, after: Size) -> str:
    return (
        f"params {before.params:,} -> {after.params:,}, bytes {before.bytes:,} -> {after.bytes:,}"
        f"{_ratio(before.bytes, after.bytes)}"
    )


def _ratio(before: int, after: int) -> str:
    if before == after or not after:
        return ""
    return f" ({before / after:.2f}x fewer)" if after < before else f" ({after / before:.2f}x more)"
