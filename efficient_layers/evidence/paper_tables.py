# SPDX-License-Identifier: Apache-2.0
"""Published tables as data: `third_party/paper_tables/*.toml`, whose README explains the keys."""

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "third_party" / "paper_tables"
_SUGGESTED = 4

Cell = str | bool | int | Decimal
Row = Mapping[str, Any]  # column -> cell, numbers with the digits that were printed


@dataclasses.dataclass(frozen=True)
class Misprint:
    """A cell known to be wrong, its correction and who says so."""

    row: str
    column: str
    correction: str
    why: str


@dataclasses.dataclass(frozen=True)
class PaperTable:
    """A published table. A column is given, measured, timed or (every other one) computed."""

    id: str
    paper: str
    arxiv: str
    place: str
    source: str
    seen: bool
    primary_source: bool
    columns: Sequence[str]
    rows: Sequence[Row]
    given: Sequence[str]
    how: str = ""
    note: str = ""
    measured: Sequence[str] = ()
    data: str = ""
    timed: Sequence[str] = ()
    device: str = ""
    configs: Sequence[str] = ()
    misprints: Sequence[Misprint] = ()

    @property
    def computed(self) -> list[str]:
        """Columns that analysis gives."""
        other = {*self.given, *self.measured, *self.timed}
        return [column for column in self.columns if column not in other]

    def misprint(self, row: Row, column: str) -> Misprint | None:
        """What is known to be wrong about a cell."""
        name = self._name(row, len(self.given))
        found = (m for m in self.misprints if m.column == column)
        return next((m for m in found if name == m.row or name.startswith(f"{m.row}/")), None)

    def labels(self) -> list[str]:
        """A name for each row: as many of its given cells as tell the rows apart.

        >>> find("convnext_readme").labels()[:2]
        ['T/224', 'S/224']
        """
        for count in range(1, len(self.given) + 1):
            names = [self._name(row, count) for row in self.rows]
            if len(set(names)) == len(names):
                return names
        return [f"{name} ({index})" for index, name in enumerate(names, start=1)]

    def _name(self, row: Row, count: int) -> str:
        return "/".join(str(row[column]) for column in self.given[:count])

    def config(self, index: int) -> str:
        """What would run the row: "configs/FILE.py:VARIANT", or "" where nothing here does."""
        if not self.configs:
            return ""
        return self.configs[index if len(self.configs) > 1 else 0]


@cache
def load() -> tuple[PaperTable, ...]:
    """All tables, sorted by id."""
    tables = []
    for path in sorted(FOLDER.glob("*.toml")):
        for raw in tomllib.loads(path.read_text(), parse_float=Decimal)["table"]:
            rows = [dict(zip(raw["columns"], cells, strict=True)) for cells in raw.pop("rows")]
            misprints = [Misprint(**fields) for fields in raw.pop("misprint", [])]
            tables.append(PaperTable(**raw, rows=rows, misprints=misprints))
    return tuple(sorted(tables, key=lambda table: table.id))


def find(id: str) -> PaperTable:
    """The table of that id.

    Raises:
      ValueError: there is none; the message names the nearest.
    """
    tables = {table.id: table for table in load()}
    if id not in tables:
        near = difflib.get_close_matches(id, tables, n=_SUGGESTED, cutoff=0.3)
        raise ValueError(
            f"No published table is named {id!r}. "
            + (f"The nearest: {', '.join(near)}. " if near else "")
            + f"--list shows all {len(tables)}."
        )
    return tables[id]
