# SPDX-License-Identifier: Apache-2.0
"""Tables of recipes: what is read from reports, how seeds are put together."""

import dataclasses
import json

import pytest

from efficient_layers import models
from efficient_layers.evidence import compressed_speed, compression

SIDE = {"weight_bytes": 800, "macs": 60, "dots": {"f32": 2}, "convolutions": {}}
BEFORE = {**SIDE, "quality": {"test_accuracy": 0.90}}
AFTER = {**SIDE, "macs": 20, "dots": {"int8": 2}, "quality": {"test_accuracy": 0.88}}
VERDICT = {"before": BEFORE, "after": AFTER, "smaller": 4.0, "faster": {"1": 0.5}, "spread": 1.5}
REPORT = {
    "compression": {
        "verdict": VERDICT | {"words": "smaller but not faster here: 4.00x"},
        "packed_bytes": 100,
    }
}


def test_a_record_is_read_from_a_report():
    found = compression.record("int8", 3, REPORT, "test_accuracy")
    assert found == compression.Record(
        "int8",
        3,
        0.90,
        0.88,
        4.0,
        3.0,
        8.0,
        {"1": 0.5},
        ("int8",),
        "smaller but not faster here",
        1.5,
    )


def test_a_metric_that_is_not_there_is_told():
    with pytest.raises(ValueError, match="'test_loss' is not in the reports: test_accuracy"):
        compression.record("int8", 3, REPORT, "test_loss")


def test_seeds_become_mean_and_deviation(tmp_path):
    one = compression.record("int8", 0, REPORT, "test_accuracy")
    two = dataclasses.replace(
        one, seed=1, before=0.92, after=0.92, speed={"1": 2.0}, packed=10.0, spread=2.5
    )
    compression.write([one, two], tmp_path / "made/digits", "Recipes", "the command")
    page = (tmp_path / "made/digits.md").read_text()
    row = next(line for line in page.splitlines() if line.startswith("| int8"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    # (88 + 92) / 2 and the sample deviation of 88, 92; differences -2 and 0; sqrt(0.5 * 2) = 1.
    assert cells == [
        "int8", "0, 1", "91.00 ± 1.41", "90.00 ± 2.83", "-1.00 ± 1.41", "4.00", "9.00", "3.00",
        "1.00 ?", "int8",
    ]  # fmt: skip
    assert "`the command`" in page
    assert len(json.loads((tmp_path / "made/digits.json").read_text())) == 2


def test_the_cases_of_speed_name_models_that_there_are():
    for name, (model, steps) in compressed_speed.CASES.items():
        assert model in models.names(), name
        assert steps
