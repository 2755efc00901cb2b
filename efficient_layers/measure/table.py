# SPDX-License-Identifier: Apache-2.0
"""A cost as text, a line a layer, for a terminal."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from efficient_layers.measure.cost import Cost

_COUNTS = ("params", "macs", "activations", "weight_bytes")


def table(cost: "Cost") -> str:
    head = ("layer", "kind", "shape", "params", "MACs", "share", "activations", "bytes")
    rows = [
        (
            row.name,
            row.kind,
            "x".join(map(str, row.shape)),
            f"{row.params:,}",
            f"{row.macs:,}",
            f"{row.macs / max(cost.macs, 1):.1%}",
            f"{row.activations:,}",
            f"{row.weight_bytes:,}",
        )
        for row in cost.layers
    ]
    totals = [f"{getattr(cost, c):,}" for c in _COUNTS]
    total = ("total", "", "", totals[0], totals[1], "", totals[2], totals[3])
    widths = [max(map(len, column)) for column in zip(head, *rows, total, strict=True)]

    def line(cells: tuple[str, ...]) -> str:
        left = [c.ljust(w) for c, w in zip(cells[:3], widths[:3], strict=True)]
        right = [c.rjust(w) for c, w in zip(cells[3:], widths[3:], strict=True)]
        return "  ".join(left + right).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    notes = [f"{row.name}: {row.note}" for row in cost.layers if row.note]
    return "\n".join([line(head), rule, *map(line, rows), rule, line(total), *notes])
