# SPDX-License-Identifier: Apache-2.0
"""Durations against hand-computed step counts."""

import pytest

from efficient_layers.train import duration

pytestmark = pytest.mark.fast
SIZES = {"steps_per_epoch": 50, "batch_size": 128, "total_steps": 1500}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (500, 500),
        ("500", 500),
        ("500 steps", 500),
        ("1 step", 1),
        ("30 epochs", 1500),
        ("0.5 epochs", 25),
        (" 1 Epoch ", 50),
        ("200000 examples", 1563),  # 1562.5
        ("200_000 examples", 1563),
        ("1e5 examples", 781),  # 781.25
        ("1 example", 1),  # never rounded away
        ("90%", 1350),
        ("100 %", 1500),
        ("0.01%", 1),
        ("5 percent", 75),
        (0, 0),
        ("0%", 0),
    ],
)
def test_units(value, expected):
    assert duration.steps(value, **SIZES) == expected


def test_an_epoch_may_be_a_fraction_of_steps():
    assert duration.steps("30 epochs", steps_per_epoch=1221 / 64, batch_size=64) == 572


@pytest.mark.parametrize("value", ["-3 epochs", -1, "3 weeks", "epochs", "", "3 4 steps", "1.5.2"])
def test_other_text_is_an_error(value):
    with pytest.raises(ValueError, match=r"must look like '500 steps'.*Got"):
        duration.steps(value, **SIZES)


@pytest.mark.parametrize("value", [True, None, 3.5, ["1 step"]])
def test_other_types_are_an_error(value):
    with pytest.raises(TypeError, match="a duration is an int"):
        duration.steps(value, **SIZES)


def test_percent_needs_a_total():
    with pytest.raises(ValueError, match="whose length is not known here"):
        duration.steps("90%", steps_per_epoch=50, batch_size=128)
    with pytest.raises(ValueError, match="longer than the whole run"):
        duration.steps("120%", **SIZES)


def test_a_size_of_zero_is_an_error():
    with pytest.raises(ValueError, match="needs steps_per_epoch > 0"):
        duration.steps("2 epochs", steps_per_epoch=0, batch_size=128)
