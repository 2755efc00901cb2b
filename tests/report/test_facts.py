# SPDX-License-Identifier: Apache-2.0
"""Open-ended sections as rows of label, value, meaning."""

import pytest

from efficient_layers.report.facts import facts

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("key", "value", "label", "text"),
    [
        ("seconds", 38.2, "Time", "38.2 s"),
        ("compile_s", 9.0, "Compiling", "9 s"),
        ("examples_per_s", 5213.4, "Examples per second", "5,213"),
        ("mfu", 0.213, "MFU", "21.30 %"),
        ("steps", 1200, "Steps", "1,200"),
        ("peak_bytes", 2048, "Peak", "2 KiB"),
        ("step_ms", 0.5, "Step", "500 µs"),
        ("test_accuracy", 0.5, "Test accuracy", "50.00 %"),
        ("peak_flops", 1.2e11, "Peak FLOP/s here", "120 G"),
        ("reason", "finished", "Reason", "finished"),
        ("donated", True, "Donated", "yes"),
    ],
)
def test_units_follow_the_key(key, value, label, text):
    (row,) = facts({key: value})
    assert (row.label, row.value.replace("\u00a0", " ")) == (label, text)


def test_nested_objects_join_and_unknown_values_are_left_out():
    rows = facts({"seconds_by_activity": {"step": 30.0}, "device": None, "dots": {}})
    assert [(r.label, r.value.replace("\u00a0", " ")) for r in rows] == [
        ("Time by activity: step", "30 s"),
        ("Matrix products", "none"),
    ]


def test_plain_rows_stand_as_they_are():
    config = {"model": {"name": "net", "widths": [8, 16], "act": None}, "steps": 10_000}
    assert [(r.label, r.value) for r in facts(config, readable=False)] == [
        ("model.name", "net"),
        ("model.widths", "8, 16"),
        ("model.act", "none"),
        ("steps", "10000"),
    ]


def test_no_section_gives_no_rows():
    assert facts(None) == []
    assert facts({}) == []
