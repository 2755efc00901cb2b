# SPDX-License-Identifier: Apache-2.0
"""docs/tables.md: published | computed | verdict of every table, and what would run the rest."""

from collections import Counter
from collections.abc import Sequence
from functools import cache

from efficient_layers.evidence.paper_tables import PaperTable, load
from efficient_layers.evidence.reproduce import verdicts
from efficient_layers.evidence.verdict import KINDS, Verdict

COMMAND = "python -m launch.reproduce --all --out=docs/tables.md"
_MEANINGS = {
    "exact": "the same number",
    "rounds to": "the printed digits are the computed number, rounded",
    "truncates to": "the printed digits are the computed number, cut off",
    "known misprint": "the print is known to be wrong; the correction stands beside it",
    "does not reproduce": "none of these; by how much the computed number is off",
    "needs data": "a result of training or of a device: the row's config would run it",
    "not computed": "the reason stands beside it",
}


def page() -> str:
    """The whole of docs/tables.md; computes everything."""
    tables = load()
    cells = sum(_tally(table)[kind] for table in tables for kind in KINDS[:5])
    return "\n".join(
        [
            "# Published tables, computed anew",
            "",
            f"{len(tables)} tables, {sum(len(t.rows) for t in tables)} rows. {cells} cells are "
            "computed from this library's models (`nnx.eval_shape`, no weights) or by arithmetic; "
            "M is 10^6 and MACs are multiply-accumulates, whatever the table calls them. "
            "The data and where they were read: `third_party/paper_tables/`.",
            f"Written by `{COMMAND}`; a test compares.",
            "",
            "| verdict | cells | meaning |",
            "|---|---:|---|",
            *(
                f"| {kind} | {sum(_tally(t)[kind] for t in tables)} | {_MEANINGS[kind]} |"
                for kind in KINDS
            ),
            "",
            *(section(table) for table in tables),
        ]
    )


def section(table: PaperTable) -> str:
    """One table in Markdown."""
    where = f" ([{table.arxiv}](https://arxiv.org/abs/{table.arxiv}))" if table.arxiv else ""
    doubts = ("" if table.seen else "; cells recalled from memory among them") + (
        "" if table.primary_source else "; not a primary source"
    )
    lines = [f"## {table.id}", "", f"{table.paper}, {table.place}{where}."]
    lines += [f"Read in: {table.source}{doubts}."]
    lines += [f"Computed: {table.how}."] * bool(table.how)
    lines += [table.note] * bool(table.note)
    found = list(zip(table.labels(), _verdicts(table.id), strict=True))
    computed = [
        f"| {label} | {column} | {row[column]} | {_computed(verdict)} |"
        for row, (label, cells) in zip(table.rows, found, strict=True)
        for column, verdict in cells.items()
        if verdict.kind != "needs data"
    ]
    if computed:
        lines += [
            "",
            "| row | column | published | computed | verdict |",
            "|---|---|---:|---:|---|",
        ]
        lines += computed
    return "\n".join([*lines, *_to_run(table, found), ""])


def summary(table: PaperTable) -> str:
    """Its line of `--list`: "id: paper, place: 32 computed, 32 need data"."""
    columns = len(table.computed), len(table.measured) + len(table.timed)
    need = f", {columns[1]} need data or a device" if columns[1] else ""
    return f"{table.id}: {table.paper}, {table.place}: {columns[0]} columns computed{need}"


def _to_run(table: PaperTable, found: Sequence[tuple[str, dict[str, Verdict]]]) -> list[str]:
    """What needs data or a device, a line a row."""
    if not table.measured and not table.timed:
        return []
    needs = [f"{', '.join(table.measured)}: {table.data}"] * bool(table.measured)
    needs += [f"{', '.join(table.timed)}: {table.device}"] * bool(table.timed)
    lines = ["", f"Needs data: {'; '.join(needs)}.", "", "| row | published | would run it |"]
    lines += ["|---|---|---|"]
    for index, (row, (label, cells)) in enumerate(zip(table.rows, found, strict=True)):
        waiting = {column: v for column, v in cells.items() if v.kind == "needs data"}
        printed = ", ".join(
            f"{column} {row[column]}" + (f" ({v.remark})" if v.remark else "")
            for column, v in waiting.items()
        )
        if printed:
            config = table.config(index)
            lines.append(f"| {label} | {printed} | {f'`{config}`' if config else '-'} |")
    return lines


def _computed(verdict: Verdict) -> str:
    words = {"known misprint": ": ", "does not reproduce": ", ", "not computed": ": "}
    said = verdict.kind + (words.get(verdict.kind, " ") + verdict.remark if verdict.remark else "")
    return f"{verdict.computed or '-'} | {said}"


def _tally(table: PaperTable) -> Counter[str]:
    return Counter(v.kind for cells in _verdicts(table.id) for v in cells.values())


@cache
def _verdicts(id: str) -> list[dict[str, Verdict]]:
    return verdicts(next(table for table in load() if table.id == id))
