# SPDX-License-Identifier: Apache-2.0
"""Published tables computed anew: a function of a row for each table that has computed columns."""

from collections.abc import Callable, Mapping

from efficient_layers.evidence.paper_tables import PaperTable, Row
from efficient_layers.evidence.reproduce import (
    compression,
    convolutions,
    efficientnets,
    language,
    mobilenets,
    mobilenets_v3,
    sequences,
    transformers_of_images,
)
from efficient_layers.evidence.verdict import Computed, Verdict, judge

NOT_PRINTED = ("-", "N/A", "")

COMPUTATIONS: dict[str, Callable[[Row], Mapping[str, Computed | str]]] = {
    **mobilenets.TABLES,
    **mobilenets_v3.TABLES,
    **convolutions.TABLES,
    **efficientnets.TABLES,
    **transformers_of_images.TABLES,
    **language.TABLES,
    **sequences.TABLES,
    **compression.TABLES,
}


def verdicts(table: PaperTable) -> list[dict[str, Verdict]]:
    """Of every row: column -> verdict, for its computed, measured and timed columns."""
    return [_row(table, row) for row in table.rows]


def _row(table: PaperTable, row: Row) -> dict[str, Verdict]:
    found = COMPUTATIONS[table.id](row) if table.computed else {}
    if set(found) != set(table.computed):
        raise ValueError(
            f"{table.id} has the computed columns {table.computed}. Got {sorted(found)}."
        )
    printed = [c for c in table.columns if c not in table.given and row[c] not in NOT_PRINTED]
    return {c: judge(row[c], found.get(c), table.misprint(row, c)) for c in printed}
