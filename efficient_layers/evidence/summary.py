# SPDX-License-Identifier: Apache-2.0
"""What the rows of a benchmark say together: geometric mean and minimum a kind, mode and batch."""

import dataclasses
from collections.abc import Sequence
from statistics import geometric_mean

from efficient_layers.evidence.benchmark import Row


@dataclasses.dataclass(frozen=True)
class Summary:
    """Ratios of rows alike in kind, mode and batch; None where the side was not measured.

    `ratio` is the geometric mean of theirs / ours, `lowest` its minimum, found at `lowest_at`;
    `plain_ratio` and `plain_lowest` are the same of plain / ours. `unsteady` rows are counted in
    all of them.
    """

    kind: str
    mode: str
    batch: int
    rows: int
    unsteady: int
    ratio: float | None
    lowest: float | None
    lowest_at: str
    plain_ratio: float | None
    plain_lowest: float | None


def summarise(rows: Sequence[Row]) -> list[Summary]:
    """One summary a (kind, mode, batch), in order of appearance."""
    groups: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.kind, row.mode, row.batch), []).append(row)
    return [_summary(group) for group in groups.values()]


def _summary(rows: list[Row]) -> Summary:
    against = {row.ratio: row.workload for row in rows if row.ratio is not None}
    plain = [row.plain_ms / row.ours_ms for row in rows if row.plain_ms is not None]
    ratios = [row.ratio for row in rows if row.ratio is not None]
    return Summary(
        kind=rows[0].kind,
        mode=rows[0].mode,
        batch=rows[0].batch,
        rows=len(rows),
        unsteady=sum(not row.steady for row in rows),
        ratio=geometric_mean(ratios) if ratios else None,
        lowest=min(ratios, default=None),
        lowest_at=against[min(against)] if against else "-",
        plain_ratio=geometric_mean(plain) if plain else None,
        plain_lowest=min(plain, default=None),
    )
