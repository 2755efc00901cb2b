# SPDX-License-Identifier: Apache-2.0
"""Where the cost of a model goes: a row a layer with its shares, and the same summed by kind."""

import dataclasses
from typing import Any

from efficient_layers.report import quantity

MEASURES = {"macs": "MACs", "params": "Parameters", "activations": "Activations"}
FOLD_ABOVE = 24
"""Tables with more rows are folded and only their largest rows shown."""
SHOWN_FOLDED = 10
_MAX_KINDS = 6


@dataclasses.dataclass(frozen=True)
class Cell:
    """One measure of one row: the raw number (for sorting), its text, its share of the sum, and
    the length of its bar, of the largest row's; both in percent."""

    raw: float
    text: str
    share: float
    bar: float

    @property
    def title(self) -> str:
        return f"{quantity.exact(self.raw)} ({self.share:.2f} %)"


@dataclasses.dataclass(frozen=True)
class Row:
    """One layer of the cost table; `colour` is its kind's place in the legend."""

    number: int
    name: str
    kind: str
    shape: str
    cells: dict[str, Cell]
    colour: int = 0


@dataclasses.dataclass(frozen=True)
class Strip:
    """One measure summed by kind of layer: (kind, share in percent, colour index)."""

    label: str
    parts: tuple[tuple[str, float, int], ...]


def rows(cost: dict[str, Any]) -> list[Row]:
    """The rows of `cost["layers"]`; shares are of the sum over the rows. Bad rows are left out."""
    layers = _layers(cost)
    columns = {m: [quantity.number(layer.get(m)) or 0.0 for layer in layers] for m in MEASURES}
    table = [
        Row(
            i + 1,
            str(layer.get("name", "(no name)")),
            str(layer.get("kind") or "no kind"),
            _shape(layer.get("shape")),
            {m: _cell(values[i], values) for m, values in columns.items()},
        )
        for i, layer in enumerate(layers)
    ]
    legend, named = _legend(table)
    return [dataclasses.replace(row, colour=named.get(row.kind, len(legend) - 1)) for row in table]


def largest(table: list[Row], measure: str = "macs", limit: int = SHOWN_FOLDED) -> list[Row]:
    """The rows with most of `measure`, largest first."""
    return sorted(table, key=lambda row: -row.cells[measure].raw)[:limit]


def strips(table: list[Row]) -> tuple[list[str], list[Strip]]:
    """Kinds of layers (the legend) and one strip a measure; small kinds join in "other kinds"."""
    legend, _ = _legend(table)
    return legend, [_strip(m, table, legend) for m in MEASURES]


def _legend(table: list[Row]) -> tuple[list[str], dict[str, int]]:
    weight: dict[str, float] = {}
    for row in table:
        share = sum(cell.share for cell in row.cells.values())
        weight[row.kind] = weight.get(row.kind, 0.0) + share
    kinds = sorted(weight, key=lambda kind: -weight[kind])
    named = kinds if len(kinds) <= _MAX_KINDS else kinds[: _MAX_KINDS - 1]
    rest = ["other kinds"] if len(named) < len(kinds) else []
    return named + rest, {kind: i for i, kind in enumerate(named)}


def _strip(measure: str, table: list[Row], legend: list[str]) -> Strip:
    shares = [0.0] * len(legend)
    for row in table:
        shares[row.colour] += row.cells[measure].share
    parts = [(legend[i], share, i) for i, share in enumerate(shares) if share > 0]
    return Strip(MEASURES[measure], tuple(parts))


def _layers(cost: dict[str, Any]) -> list[dict[str, Any]]:
    layers = cost.get("layers")
    return [r for r in layers if isinstance(r, dict)] if isinstance(layers, list) else []


def _cell(raw: float, column: list[float]) -> Cell:
    total, most = sum(column), max(column)
    return Cell(raw, quantity.count(raw), 100 * raw / (total or 1.0), 100 * raw / (most or 1.0))


def _shape(shape: Any) -> str:
    if isinstance(shape, list | tuple):
        return " \u00d7 ".join(str(size) for size in shape)
    return "" if shape is None else str(shape)
