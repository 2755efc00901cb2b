# SPDX-License-Identifier: Apache-2.0
"""Rows of a benchmark as a terminal table, CSV and Markdown."""

import csv
import dataclasses
import datetime
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import rich.console
import rich.table

from efficient_layers.evidence.benchmark import Row
from efficient_layers.evidence.summary import Summary, summarise

COLUMNS = tuple(field.name for field in dataclasses.fields(Row))
# Said once, below the table, or by the workload's name.
SHARED = ("kind", "load", "calls", "threads", "device", "versions")
_TOGETHER = tuple(field.name for field in dataclasses.fields(Summary))
_SHOWN = tuple(column for column in COLUMNS if column not in SHARED)
_NOTE = (
    "Medians of alternating warm calls in one run; ratio = theirs / ours, above 1 ours is faster; "
    "plain = the same of `nnx.Conv` and `nnx.BatchNorm` (one call where it is slow); theirs = "
    "torch eager, channels_last; spread = p90 / p10 of the unsteadier side. A ratio marked ? had a "
    "spread above 2 and is no result: run again on a quiet machine."
)
_TOGETHER_TITLE = "Together: geometric mean and minimum of the ratios"


def terminal(rows: Sequence[Row], title: str) -> rich.console.Group:
    """Rows and their summary for `rich.print`."""
    table = rich.table.Table(*_SHOWN, title=title, caption=_shared(rows))
    for row in rows:
        table.add_row(*_cells(row))
    together = rich.table.Table(*_TOGETHER, title=_TOGETHER_TITLE)
    for summary in summarise(rows):
        together.add_row(*_summary_cells(summary))
    return rich.console.Group(table, together)


def markdown(rows: Sequence[Row], title: str) -> str:
    """The table as a Markdown page."""
    lines = [f"# {title}", "", _NOTE, "", _line(_SHOWN), _line("---" for _ in _SHOWN)]
    lines += [_line(_cells(row)) for row in rows]
    lines += ["", f"## {_TOGETHER_TITLE}", ""]
    lines += [_line(_TOGETHER), _line("---" for _ in _TOGETHER)]
    lines += [_line(_summary_cells(summary)) for summary in summarise(rows)]
    return "\n".join([*lines, "", _shared(rows), ""])


def write(rows: Sequence[Row], folder: str | Path, suite: str, against: str) -> tuple[Path, Path]:
    """Writes NAME.csv (all columns, all digits) and NAME.md; NAME tells suite, environment, date.

    Raises:
      ValueError: there is no row.
    """
    if not rows:
        raise ValueError("A benchmark table needs at least one row. Got none.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    name = f"{suite}-against-{against}-{_slug(rows[0])}-{day}"
    with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(dataclasses.asdict(row) for row in rows)
    title = f"Benchmark suite {suite} against {against}, {day}"
    (folder / f"{name}.md").write_text(markdown(rows, title), encoding="utf-8")
    return folder / f"{name}.csv", folder / f"{name}.md"


def _slug(row: Row) -> str:
    """Device kind, threads and JAX version: "cpu2-jax0.10.2"."""
    kind = re.split(r"\W", row.device, maxsplit=1)[0]
    return f"{kind}{row.threads}-{row.versions.split(',')[0].replace(' ', '')}"


def _shared(rows: Sequence[Row]) -> str:
    row = rows[0]
    run = f"{row.calls} calls; load {row.load:.1f} at the start."
    return f"{row.device}; {row.threads} threads a side; {row.versions}; {run}"


def _cells(row: Row) -> list[str]:
    cells = {column: _spell(getattr(row, column)) for column in _SHOWN}
    if row.ratio is not None and not row.steady:
        cells["ratio"] += " ?"
    return list(cells.values())


def _summary_cells(summary: Summary) -> list[str]:
    return [_spell(value) for value in dataclasses.astuple(summary)]


def _spell(value: str | float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
