# SPDX-License-Identifier: Apache-2.0
"""The pages in a real browser: nothing in the console, nothing fetched, drawn, readable."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from efficient_layers.report import compare_page, run_page

pytestmark = pytest.mark.browser
HOSTILE = "</script><script>console.error('run')</script><img src=http://a.invalid/x.png> \u2028"

# Canvases of every plot, found through Bokeh's shadow roots: how many colours each one holds.
COLOURS_DRAWN = """
const canvases = (node) => [
  ...(node.tagName === "CANVAS" ? [node] : []),
  ...[...(node.shadowRoot?.children ?? []), ...node.children].flatMap(canvases),
];
return [...document.querySelectorAll(".plot")].map((plot) => {
  const seen = new Set();
  for (const canvas of canvases(plot)) {
    if (!canvas.width || !canvas.height) continue;
    const copy = new OffscreenCanvas(canvas.width, canvas.height);
    const context = copy.getContext("2d", { willReadFrequently: true });
    context.drawImage(canvas, 0, 0);
    const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
    const pixels = new Uint32Array(data.buffer);
    for (const pixel of pixels) if (pixel) seen.add(pixel);
  }
  return seen.size;
});
"""
IDLE = """
const wanted = document.querySelectorAll(".plot").length;
return document.documentElement.dataset.plots === String(wanted)
  && Bokeh.documents.length === wanted && Bokeh.documents.every((d) => d.is_idle);
"""
SMALLEST_TEXT = """
let smallest = 99;
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const parent = walk.currentNode.parentElement;
  if (!walk.currentNode.textContent.trim() || parent.closest("script, style")) continue;
  smallest = Math.min(smallest, parseFloat(getComputedStyle(parent).fontSize));
}
for (const document of Bokeh.documents) {
  for (const axis of document.roots().flatMap((plot) => [...plot.below, ...plot.left])) {
    smallest = Math.min(smallest, parseFloat(axis.major_label_text_font_size));
    smallest = Math.min(smallest, parseFloat(axis.axis_label_text_font_size));
  }
}
return smallest;
"""


def _open(browser: Any, page: str, path: Path, width: int, *, plots: bool = True) -> None:
    path.write_text(page, encoding="utf-8")
    browser.get("about:blank")
    browser.get_log("browser")
    browser.get_log("performance")
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(path.as_uri())
    if plots:
        _wait(browser, IDLE)


def _wait(browser: Any, script: str, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not browser.execute_script(script):
        assert time.monotonic() < end, f"never came true: {script}"
        time.sleep(0.02)


def _assert_quiet(browser: Any, path: Path) -> None:
    assert [e for e in browser.get_log("browser") if e["level"] in ("SEVERE", "WARNING")] == []
    events = [json.loads(e["message"])["message"] for e in browser.get_log("performance")]
    urls = [
        e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"
    ]
    assert {u for u in urls if not u.startswith("data:")} <= {path.as_uri(), "about:blank"}
    assert path.as_uri() in urls  # the log does record requests


def _assert_readable(browser: Any, width: int) -> None:
    assert browser.execute_script("return innerWidth") == width
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script(SMALLEST_TEXT) >= 12


@pytest.mark.parametrize("width", [400, 1400])
def test_run_page_is_drawn_quiet_and_readable(browser, make_report, tmp_path, width):
    report = make_report(layers=45)
    report["model"] += HOSTILE
    report["cost"]["layers"][0]["name"] = "a_very_long_name_without_any_slash_" * 4
    report["config"]["note"] = HOSTILE + "x" * 300
    path = tmp_path / "report.html"
    _open(browser, run_page(report), path, width)
    drawn = browser.execute_script(COLOURS_DRAWN)
    assert len(drawn) == 6
    assert min(drawn) > 10, drawn  # axes alone give fewer shades than a smooth line
    _assert_readable(browser, width)
    _assert_quiet(browser, path)


def test_empty_report_gives_a_quiet_page(browser, tmp_path):
    path = tmp_path / "empty.html"
    _open(browser, run_page({}), path, 400, plots=False)
    assert browser.execute_script("return document.querySelectorAll('.missing').length") >= 6
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 400
    _assert_quiet(browser, path)


@pytest.mark.parametrize("width", [400, 1400])
def test_compare_page_redraws_for_picked_axes(browser, make_report, tmp_path, width):
    reports = [
        make_report(f"run {i}", accuracy, scale)
        for i, (accuracy, scale) in enumerate([(0.92, 0.4), (0.97, 1.0), (0.96, 1.3)])
    ]
    reports[0]["model"] += HOSTILE
    path = tmp_path / "compare.html"
    _open(browser, compare_page(reports), path, width)
    assert browser.execute_script(COLOURS_DRAWN)[0] > 10
    labels = (
        "const p = Bokeh.documents[0].roots()[0];"
        "return [p.below[0], p.left[0]].map((axis) => axis.axis_label)"
    )
    before = browser.execute_script(labels)
    picture = "return document.querySelector('#pareto').getBoundingClientRect().height"
    assert browser.execute_script(picture) >= 300

    browser.execute_script(
        "const x = document.getElementById('x'); x.value = 'latency';"
        "x.dispatchEvent(new Event('change'));"
    )
    _wait(browser, "return Bokeh.documents.every((d) => d.is_idle)")
    after = browser.execute_script(labels)
    assert before[0].startswith("MACs")
    assert after == ["Latency, batch 1, ms (less is better)", before[1]]
    xs = "return Array.from(Bokeh.documents[0].get_model_by_name('points').data.x)"
    assert browser.execute_script(xs) == pytest.approx([0.16, 0.4, 0.52])
    assert browser.execute_script(COLOURS_DRAWN)[0] > 10
    _assert_readable(browser, width)
    _assert_quiet(browser, path)


def test_picking_the_same_axis_twice_swaps_the_two(browser, make_report, tmp_path):
    reports = [make_report("a", 0.9, 0.5), make_report("b", 0.95, 1.0)]
    _open(browser, compare_page(reports), tmp_path / "compare.html", 1400)
    browser.execute_script(
        "const x = document.getElementById('x'); x.value = 'quality';"
        "x.dispatchEvent(new Event('change'));"
    )
    values = "return ['x', 'y'].map((id) => document.getElementById(id).value)"
    assert browser.execute_script(values) == ["quality", "macs"]


def test_layer_table_sorts_by_a_click(browser, make_report, tmp_path):
    _open(browser, run_page(make_report(layers=9)), tmp_path / "report.html", 1400)
    column = (
        "return [...document.querySelectorAll('.layers tbody tr')]"
        ".map((row) => +row.cells[2].dataset.sort)"
    )
    before = browser.execute_script(column)
    browser.execute_script("document.querySelectorAll('.layers th button')[2].click()")
    assert browser.execute_script(column) == sorted(before, reverse=True) != before


def test_dark_scheme_repaints_paper_and_axes(browser, make_report, tmp_path):
    _open(browser, run_page(make_report()), tmp_path / "report.html", 1400)
    axis = (
        "return getComputedStyle(document.querySelector('.plot')).getPropertyValue("
        "'--bk-major-label-text-color').trim()"
    )
    paper = "return getComputedStyle(document.body).backgroundColor"
    light = browser.execute_script(axis), browser.execute_script(paper)
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    try:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": dark})
        _wait(browser, IDLE)
        assert browser.execute_script(axis) != light[0]
        assert browser.execute_script(paper) == "rgb(20, 23, 27)" != light[1]
        browser.save_screenshot(str(tmp_path / "dark.png"))
        assert min(browser.execute_script(COLOURS_DRAWN)) > 10
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
