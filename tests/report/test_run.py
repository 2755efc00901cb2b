# SPDX-License-Identifier: Apache-2.0
"""The page of one run, read as text."""

import re

import pytest

from efficient_layers.report import run_page
from efficient_layers.report.page import _bokeh

pytestmark = pytest.mark.fast
SECTIONS = ("quality", "cost", "latency", "memory", "training", "environment", "config", "history")


def _visible(page: str) -> str:
    """The page's own markup: without scripts and style."""
    return re.sub(r"<(script|style).*?</\1>", "", page, flags=re.DOTALL)


def test_whole_report_misses_nothing_and_stays_light(make_report):
    page = run_page(make_report("mobilenet_v2", layers=60))
    assert 'class="missing"' not in page
    assert "All 60 layers, in order" in page
    assert len(page.encode()) - len(_bokeh()) < 200_000  # Bokeh 3.9's own bundle: 1.27 MB


def test_page_refers_to_nothing_outside_itself(make_report):
    page = _visible(run_page(make_report()))
    assert not re.findall(r"https?:", page)
    assert re.findall(r'(?:src|href)="(?!data:)[^"]*"', page) == []
    assert "default-src 'none'" in page


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("damage", ["absent", "null", "empty", "wrong type"])
def test_a_missing_section_never_breaks_the_page(make_report, section, damage):
    report = make_report(steps=20 if section == "history" else 0)
    empty = type(report[section])()
    report[section] = {"null": None, "empty": empty, "wrong type": "text"}.get(damage)
    if damage == "absent":
        del report[section]
    page = _visible(run_page(report))
    assert 'class="missing"' in page or section == "quality"  # quality: its card says so
    assert "not recorded" in page or section not in ("quality", "cost", "latency", "training")


def test_empty_report_says_what_is_missing_and_brings_no_bokeh():
    page = run_page({})
    assert page.count('class="missing"') >= 6
    assert len(page) < 30_000


def test_text_is_escaped(make_report):
    evil = "</script><script>alert(1)</script>"
    report = make_report(evil)
    report["cost"]["layers"][0]["name"] = report["config"][evil] = evil
    report["history"][0][evil] = 1.0
    page = run_page(report)
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_captions_explain_the_words(make_report):
    page = " ".join(_visible(run_page(make_report())).split())
    for words in ("one multiplication with one addition", "travel through memory", "the middle of"):
        assert words in page
