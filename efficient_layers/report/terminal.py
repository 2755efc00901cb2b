# SPDX-License-Identifier: Apache-2.0
"""A comparison of runs as a table in the terminal."""

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from efficient_layers.report import quantity
from efficient_layers.report.runs import Metric, Run
from efficient_layers.report.trade_off import TradeOff, sentences


def comparison(runs: Sequence[Run], axes: Mapping[str, Metric], result: TradeOff) -> RenderableType:
    """A table of the runs, those on the front marked; below it front, dominated, hypervolume."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("Run", overflow="fold")
    table.add_column("Model", overflow="fold")
    for axis in axes.values():
        table.add_column(axis.head, justify="right", no_wrap=True)
    table.add_column("Training", justify="right", no_wrap=True)
    for run in runs:
        mark = " [bold cyan]*[/]" if run.name in result.front else ""
        values = [run.text(name) for name in axes]
        table.add_row(
            escape(run.name) + mark, escape(run.model), *values, quantity.seconds(run.seconds)
        )
    words = sentences(result)
    heading = f"{result.y.title} against {result.x.title}"
    return Group(
        table,
        f"[bold]{escape(heading)}[/] (* on the front)",
        *_lines("front", words["front"]),
        *_lines("dominated", words["dominated"]),
        *_lines("hypervolume", words["volume"]),
    )


def _lines(label: str, entries: Sequence[str]) -> list[str]:
    return [f"  {label if i == 0 else '':<12} {escape(entry)}" for i, entry in enumerate(entries)]
