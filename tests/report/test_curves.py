# SPDX-License-Identifier: Apache-2.0
"""Histories of any shape become panels."""

import pytest

from efficient_layers.report import curves

pytestmark = pytest.mark.fast


def test_splits_of_one_metric_share_a_panel_and_known_metrics_lead():
    history = [
        {"step": 2, "train/loss": 1.0, "zebra": 5.0, "learning_rate": 0.1},
        {"step": 1, "train/loss": 2.0, "validation/loss": 3.0},
    ]
    panels, undrawn = curves.panels(history)
    assert [p.title for p in panels] == ["Loss", "Learning rate", "Zebra"]
    assert undrawn == []
    train, validation = panels[0].series
    assert (train.name, train.steps, train.values) == ("train", (1.0, 2.0), (2.0, 1.0))
    assert (validation.name, validation.values) == ("validation", (3.0,))


def test_what_is_no_number_is_left_out():
    history = [
        {"step": 1, "train/loss": float("nan"), "note": "text", "ok": True, "train/accuracy": None},
        {"train/loss": 1.0},
        "not a record",
        {"step": 2, "train/loss": 0.5, "elapsed_s": 3.0},
    ]
    panels, _ = curves.panels(history)
    assert [(p.metric, p.series[0].values) for p in panels] == [("loss", (0.5,))]


@pytest.mark.parametrize("history", [None, [], {}, "text", 3, [{"step": 1}]])
def test_no_history_gives_no_panels(history):
    assert curves.panels(history) == ([], [])


def test_too_many_metrics_are_named_instead_of_drawn():
    names = [f"metric_{i:02d}" for i in range(curves.MAX_PANELS + 3)]
    panels, undrawn = curves.panels([{"step": 1, **dict.fromkeys(names, 1.0)}])
    assert len(panels) == curves.MAX_PANELS
    assert undrawn == names[-3:]


def test_thinning_keeps_ends_and_extremes():
    points = [(float(i), 0.0) for i in range(10_000)]
    points[3_333], points[7_777] = (3333.0, 9.0), (7777.0, -9.0)
    kept = curves.thin(points)
    assert len(kept) <= curves.MAX_POINTS
    assert kept[0] == points[0]
    assert kept[-1] == points[-1]
    assert {(3333.0, 9.0), (7777.0, -9.0)} <= set(kept)
    assert kept == sorted(kept)
    assert curves.thin(points[:5]) == points[:5]
