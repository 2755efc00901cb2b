# SPDX-License-Identifier: Apache-2.0
"""Two metrics of many runs: the analysis, its words, the page."""

import json
import re

import pytest
from scipy import stats

from efficient_layers.report import collect, compare_page, metrics, trade_off
from efficient_layers.report.trade_off import sentences

pytestmark = pytest.mark.fast


@pytest.fixture
def reports(make_report):
    """MACs 135k, 270k, 405k at accuracies 0.90, 0.98, 0.96: the last is dominated."""
    return [make_report(n, a, s) for n, a, s in [("s", 0.9, 0.5), ("m", 0.98, 1), ("l", 0.96, 1.5)]]


def _data(page: str) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_analysis_by_hand(reports):
    axes = metrics()
    found = trade_off(collect(reports), axes["macs"], axes["quality"])
    assert found.front == ["s", "m"]
    assert found.dominated == {"l": ["m"]}
    assert found.reference == pytest.approx((432_000, 0.892))
    # s: (432 - 135)k x 0.008; m adds (432 - 270)k x 0.08. The box: 297k x 0.088.
    assert found.hypervolume == pytest.approx(297_000 * 0.008 + 162_000 * 0.08)
    assert found.share == pytest.approx(found.hypervolume / (297_000 * 0.088))


def test_fixed_reference_by_metric_name(reports):
    axes = metrics()
    found = trade_off(
        collect(reports), axes["macs"], axes["quality"], reference={"quality": 0.5, "macs": 1e6}
    )
    assert found.reference == (1e6, 0.5)
    assert found.hypervolume == pytest.approx(865_000 * 0.4 + 730_000 * 0.08)


def test_runs_without_a_value_are_named(reports):
    reports[1]["latency"] = {}
    axes = metrics()
    found = trade_off(collect(reports), axes["latency"], axes["quality"])
    assert found.missing == ["m"]
    assert "m: left out, one of the two values is missing" in sentences(found)["dominated"]


def test_no_run_with_both_values(reports):
    for report in reports:
        report["latency"] = {}
    axes = metrics()
    found = trade_off(collect(reports), axes["latency"], axes["quality"])
    assert (found.front, found.hypervolume, found.reference) == ([], 0.0, None)
    assert sentences(found)["front"] == ["No run has both values."]
    assert "No run has both values." in json.dumps(_data(compare_page(reports)))


def test_sentences(reports):
    axes = metrics()
    words = sentences(trade_off(collect(reports), axes["macs"], axes["quality"]))
    front = [line.replace("\u00a0", " ") for line in words["front"]]
    assert front == ["s: 90.00 % at 135 k MACs", "m: 98.00 % at 270 k MACs"]
    assert words["dominated"] == ["l: by m"]
    assert words["volume"][-1].startswith("reference point: 432")


def test_page_holds_every_pair_in_the_units_of_its_axes(reports):
    data = _data(compare_page(reports, names=["x/s", "x/m", "x/l"]))
    assert len(data) == 20
    pair = data["macs|quality"]
    assert pair["front"] == ["x/s", "x/m"]
    assert pair["points"]["x"] == pytest.approx([135, 270, 405])
    assert pair["points"]["y"] == pytest.approx([90, 98, 96])
    assert pair["x_label"] == "MACs, thousands (less is better)"
    assert pair["y_label"] == "Test accuracy, % (more is better)"
    assert data["quality|macs"]["points"]["x"] == pytest.approx([90, 98, 96])


def test_page_names_runs_and_warns_of_two_devices(reports):
    reports[0]["latency"]["device"] = "gpu: other"
    page = compare_page(reports)
    assert page.count('<tr data-run="') == 3
    assert "Latencies come from 2 devices" in page
    low, high = stats.binomtest(353, 360).proportion_ci(0.95, method="exact")
    assert f"{100 * low:.2f} to {100 * high:.2f}" in page


def test_one_run_makes_a_page(make_report):
    assert "1 run compared" in compare_page([make_report()])


def test_errors(reports):
    with pytest.raises(ValueError, match="at least one report"):
        compare_page([])
    with pytest.raises(ValueError, match="Unknown axis 'speed'; choose one of quality, params"):
        compare_page(reports, x="speed")
    with pytest.raises(ValueError, match="must differ; got 'macs' twice"):
        compare_page(reports, x="macs", y="macs")
