# SPDX-License-Identifier: Apache-2.0
"""The page of one run, from its report.json."""

from typing import Any

from efficient_layers.report import breakdown, compression, curves, headline, quantity, speed
from efficient_layers.report.facts import facts
from efficient_layers.report.file import section
from efficient_layers.report.page import render
from efficient_layers.report.palette import COLOURS


def run_page(report: dict[str, Any]) -> str:
    """One self-contained HTML page for a report of schema 1 (see `el.measure.report`).

    Any part may be missing: its section then says what is missing. Nothing is fetched when the
    page is opened, and all text in the report is escaped.
    """
    from efficient_layers.report import chart  # brings Bokeh

    report = {key: value for key, value in report.items() if value is not None}
    panels, undrawn = curves.panels(report.get("history"))
    plots = {f"curve-{i}": chart.item(chart.curves(panel)) for i, panel in enumerate(panels)}
    return render(
        "run.html",
        plots=plots,
        title=str(report.get("model", "Unnamed model")),
        subtitle=_subtitle(report),
        cards=headline.cards(report),
        panels=panels,
        undrawn=undrawn,
        colours=COLOURS,
        latency=speed.rows(section(report, "latency")),
        device=section(report, "latency").get("device"),
        quality=facts(section(report, "quality")),
        memory=facts(section(report, "memory")),
        training=facts(section(report, "training")),
        executed=facts({k: v for k, v in section(report, "executed").items() if k != "memory"}),
        environment=facts(section(report, "environment"), readable=False),
        config=facts(section(report, "config"), readable=False),
        schema=report.get("schema", "not stated"),
        **_compression(section(report, "compression")),
        **_cost(section(report, "cost")),
    )


def _compression(part: dict[str, Any]) -> dict[str, Any]:
    verdict = section(part, "verdict")
    rows = part.get("rows")
    return {
        "verdict": verdict.get("words"),
        "changes": compression.lines(part),
        "touched": rows if isinstance(rows, list) else [],
    }


def _cost(cost: dict[str, Any]) -> dict[str, Any]:
    rows = breakdown.rows(cost)
    legend, strips = breakdown.strips(rows)
    fold = len(rows) > breakdown.FOLD_ABOVE
    return {
        "layers": rows,
        "largest": breakdown.largest(rows) if fold else [],
        "kinds": legend,
        "strips": strips,
        "measures": breakdown.MEASURES,
        "totals": {m: quantity.count(cost.get(m)) for m in breakdown.MEASURES},
    }


def _subtitle(report: dict[str, Any]) -> list[str]:
    environment = section(report, "environment")
    data = section(section(report, "config"), "data").get("name")
    device = section(report, "latency").get("device") or environment.get("device")
    created = str(report.get("created", "")).replace("T", " ")[:16]
    parts = [report.get("name"), data and f"data: {data}", device and f"on {device}", created]
    return [str(part) for part in parts if part]
