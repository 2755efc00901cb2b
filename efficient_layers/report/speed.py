# SPDX-License-Identifier: Apache-2.0
"""Rows of the latency table, with bars on one scale so that the gain of batching can be seen."""

import dataclasses
from typing import Any

from efficient_layers.report import quantity


@dataclasses.dataclass(frozen=True)
class Speed:
    """Latency at one batch size, in milliseconds a call; `low`, `middle`, `high` place its bar.

    The bar is p10 to p90 with the median, time per example, in percent of the slowest row's p90.
    """

    batch: int
    median: float
    p10: float | None
    p90: float | None
    compile_s: Any
    scale: float = 1.0

    @property
    def each(self) -> float:
        """Milliseconds an example."""
        return self.median / self.batch

    @property
    def rate(self) -> float:
        """Examples a second."""
        return 1000 * self.batch / self.median

    @property
    def low(self) -> float:
        return self._place(self.p10)

    @property
    def middle(self) -> float:
        return self._place(self.median)

    @property
    def high(self) -> float:
        return self._place(self.p90)

    def _place(self, ms: float | None) -> float:
        return 100 * (self.median if ms is None else ms) / self.batch / self.scale


def rows(latency: dict[str, Any]) -> list[Speed]:
    """A row a batch size of `latency["batch"]`, smallest first; rows without a median left out."""
    batches = latency.get("batch")
    found = []
    for key, entry in batches.items() if isinstance(batches, dict) else ():
        median = quantity.number(entry.get("median_ms")) if isinstance(entry, dict) else None
        if median is None or median <= 0 or not str(key).isdigit() or int(key) < 1:
            continue
        p10, p90 = (quantity.number(entry.get(name)) for name in ("p10_ms", "p90_ms"))
        compile_s = entry.get("compile_s", latency.get("compile_s"))
        found.append(Speed(int(key), median, p10, p90, compile_s))
    scale = max((max(row.each, (row.p90 or 0) / row.batch) for row in found), default=1.0)
    ordered = sorted(found, key=lambda row: row.batch)
    return [dataclasses.replace(row, scale=scale) for row in ordered]
