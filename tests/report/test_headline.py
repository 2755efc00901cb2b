# SPDX-License-Identifier: Apache-2.0
"""The exact binomial interval against SciPy's, and the cards of a run."""

import pytest
from scipy import stats

from efficient_layers.report import binomial_interval, headline, quantity

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("right", "examples"), [(0, 10), (10, 10), (354, 360), (1, 3), (9812, 10000)]
)
def test_interval_is_scipys_exact_one(right, examples):
    expected = stats.binomtest(right, examples).proportion_ci(0.95, method="exact")
    assert binomial_interval(right / examples, examples) == pytest.approx(tuple(expected))


def test_interval_of_a_float_that_was_rounded_in_json():
    assert binomial_interval(0.98333, 360) == binomial_interval(354 / 360, 360)


@pytest.mark.parametrize(("share", "examples"), [(1.2, 10), (-0.1, 10), (0.5, 0)])
def test_interval_refuses_what_is_no_share(share, examples):
    with pytest.raises(ValueError, match="0 <= proportion <= 1 and examples >= 1"):
        binomial_interval(share, examples)


def test_cards_of_a_whole_report(make_report):
    cards = {card.label: card for card in headline.cards(make_report(accuracy=354 / 360))}
    assert next(iter(cards)) == "Test accuracy"
    assert cards["Test accuracy"].value.startswith("98.33")
    assert cards["Test accuracy"].detail == "95 % interval 96.41 to 99.39 %"
    assert "354 of 360" in cards["Test accuracy"].note
    assert not any(card.missing for card in cards.values())


def test_cards_of_nothing_are_all_missing():
    assert all(card.missing for card in headline.cards({}))


def test_without_test_examples_there_is_no_interval():
    (accuracy, *_) = headline.cards({"quality": {"test_accuracy": 0.5}})
    assert accuracy.value != quantity.MISSING
    assert accuracy.detail == ""
    assert "no interval" in accuracy.note


def test_interval_needs_an_accuracy_on_test():
    quality = {"validation_accuracy": 0.5, "test_loss": 0.5, "test_examples": 10}
    assert headline.interval(quality, "validation_accuracy") is None
    assert headline.interval(quality, "test_loss") is None
