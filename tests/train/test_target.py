# SPDX-License-Identifier: Apache-2.0
"""Targets: what parses, and when they are met."""

import math

import pytest

from efficient_layers.train.target import Target

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("text", "value", "met"),
    [
        ("accuracy>=0.98", 0.98, True),
        ("accuracy>=0.98", 0.9799, False),
        ("loss<0.1", 0.1, False),
        ("loss < 1e-1", 0.05, True),
        ("loss<=-2", -2.0, True),
        ("validation/accuracy>50", 51, True),
        ("loss<=1", math.nan, False),
        ("accuracy>=0.5", math.nan, False),
    ],
)
def test_parse_and_met(text, value, met):
    target = Target.parse(text)
    assert target.met({target.metric: value, "other": 1e9}) is met
    assert Target.parse(str(target)) == target


@pytest.mark.parametrize(
    "text", ["accuracy", "accuracy=0.9", "accuracy==1", ">=0.9", "a>=b", "a>="]
)
def test_other_text_is_an_error(text):
    with pytest.raises(ValueError, match=r"e\.g\. 'accuracy>=0\.98'\. Got"):
        Target.parse(text)


def test_a_missing_metric_names_those_there():
    with pytest.raises(KeyError, match="no metric 'acuracy', only accuracy, loss"):
        Target.parse("acuracy>=0.9").met({"loss": 1.0, "accuracy": 0.5})
