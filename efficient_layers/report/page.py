# SPDX-License-Identifier: Apache-2.0
"""One self-contained HTML page: template, style, script and Bokeh's core bundle in a single string.

The page carries a Content-Security-Policy that forbids every network request, so that a report
opens from a disk, an e-mail or an artefact store, and stays the same for as long as a browser
reads HTML. Jinja2 escapes all text; data for scripts is JSON in which `<` cannot occur.
"""

import functools
import json
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from efficient_layers.report import quantity

_HERE = Path(__file__).parent


def render(
    template: str, *, plots: dict[str, dict[str, Any]], data: Any = None, **values: Any
) -> str:
    """Fill `template`; `plots` maps the id of a page element to a Bokeh item (`chart.item`).

    `data` is any JSON for the page's own script. A page without plots leaves Bokeh out.
    """
    return (
        _environment()
        .get_template(template)
        .render(
            plots=_json(plots),
            data=_json(data),
            style=_asset("page.css"),
            script=_asset("page.js"),
            bokeh=_bokeh() if plots else "",
            quantity=quantity,
            **values,
        )
    )


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@functools.cache
def _asset(name: str) -> Markup:
    return Markup((_HERE / name).read_text(encoding="utf-8"))


@functools.cache
def _bokeh() -> Markup:
    from bokeh.resources import Resources  # here: a library that only measures needs no Bokeh

    bundle = "\n".join(Resources(mode="inline", components=["bokeh"]).js_raw)
    return Markup(bundle.replace("</script", "<\\/script"))


def _json(value: Any) -> Markup:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)
