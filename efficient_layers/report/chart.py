# SPDX-License-Identifier: Apache-2.0
"""Bokeh figures in the pages' own look: quiet axes, system font, colours that suit light and dark.

Axes, grids and labels take their colours from the `--bk-*` properties in page.css, which Bokeh
reads when it draws. Imported where a page is made, not before: Bokeh takes most of a second.
"""

from typing import Any

from bokeh.core.properties import value
from bokeh.embed import json_item
from bokeh.models import BasicTickFormatter, ColumnDataSource, DataRange1d, HoverTool
from bokeh.models.plots import Plot
from bokeh.plotting import figure

from efficient_layers.report.curves import Panel, Series
from efficient_layers.report.palette import COLOURS, DOMINATED, FRONT

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
_SIZE = "12px"
_MARKERS_UP_TO = 40


def curves(panel: Panel) -> figure:
    """One metric over steps, a line a split; the page's own HTML carries title and legend."""
    plot = _figure(height=230)
    plot.xaxis.axis_label = "step"
    for index, series in enumerate(panel.series):
        _draw(plot, series, COLOURS[index % len(COLOURS)], panel.title)
    return plot


def scatter(
    points: dict[str, list[Any]], outline: dict[str, list[float]], region: dict[str, list[float]]
) -> figure:
    """The Pareto plot: runs, the outline of the front, the region whose area is the hypervolume.

    The three sources are named "points", "outline" and "region", so that page.js can refill them.
    """
    plot = _figure(height=460)
    plot.name = "pareto"
    plot.x_range, plot.y_range = DataRange1d(range_padding=0.14), DataRange1d(range_padding=0.12)
    plot.patch(
        "x", "y", source=_source("region", region), fill_color=FRONT, fill_alpha=0.09,
        line_color=None,
    )  # fmt: skip
    plot.line("x", "y", source=_source("outline", outline), line_color=FRONT, line_width=1.5)
    source = _source("points", points)
    runs = plot.scatter(
        "x", "y", source=source, size=11, fill_color="colour", line_color="colour",
        fill_alpha="alpha", line_width=1.5,
    )  # fmt: skip
    plot.text(
        "x", "y", text="label", source=source, text_font=value(_FONT), text_font_size="13px",
        text_align="align", text_baseline=value("alphabetic"), x_offset="shift", y_offset="drop",
        name="labels", text_color=DOMINATED,
    )  # fmt: skip
    tips = [("run", "@name"), ("across", "@x_text"), ("up", "@y_text")]
    plot.add_tools(HoverTool(renderers=[runs], tooltips=tips))
    return plot


def item(plot: Plot) -> dict[str, Any]:
    """What `Bokeh.embed.embed_item` takes, as a JSON-able dict."""
    return dict(json_item(plot))


def _figure(height: int) -> figure:
    plot = figure(
        height=height,
        sizing_mode="stretch_width",
        toolbar_location=None,
        tools="",
        background_fill_alpha=0,
        border_fill_alpha=0,
        outline_line_color=None,
        min_border_left=44,
        min_border_right=12,
    )
    plot.xgrid.visible = False
    for axis in (*plot.xaxis, *plot.yaxis):
        axis.major_label_text_font = axis.axis_label_text_font = _FONT
        axis.major_label_text_font_size = axis.axis_label_text_font_size = _SIZE
        axis.axis_label_text_font_style = "normal"
        axis.minor_tick_line_color = None
        axis.major_tick_in, axis.major_tick_out = 0, 4
        axis.ticker.desired_num_ticks = 5
        axis.formatter = BasicTickFormatter(use_scientific=True, power_limit_low=-4)
    plot.yaxis.axis_line_color = None
    return plot


def _draw(plot: figure, series: Series, colour: str, title: str) -> None:
    data = {"x": [_short(x) for x in series.steps], "y": [_short(y) for y in series.values]}
    source = ColumnDataSource(data)
    line = plot.line("x", "y", source=source, line_color=colour, line_width=2, line_join="round")
    if len(series.steps) <= _MARKERS_UP_TO:
        plot.scatter("x", "y", source=source, size=5, color=colour)
    label = f"{series.name} {title}".strip().replace("@", "").replace("$", "")
    tips = [("step", "@x{0,0}"), (label.lower(), "@y{0.[000000]}")]
    plot.add_tools(HoverTool(renderers=[line], tooltips=tips, mode="vline"))


def _short(value: float) -> int | float:
    """Six digits are more than a screen shows, and a third of a float's text."""
    return int(value) if value == int(value) else float(f"{value:.6g}")


def _source(name: str, data: dict[str, list[Any]]) -> ColumnDataSource:
    return ColumnDataSource(data, name=name)
