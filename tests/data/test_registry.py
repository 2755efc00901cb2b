# SPDX-License-Identifier: Apache-2.0
"""Names of data sets."""

import pytest

from efficient_layers import data

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(("name", "guess"), [("digit", "'digits'"), ("cifar10", "'tfds:cifar10'")])
@pytest.mark.parametrize("stand_in", [False, True])
def test_an_unknown_name_gets_a_suggestion(name, guess, stand_in):
    with pytest.raises(ValueError, match=f"Unknown data set .*Did you mean {guess}"):
        data.load(name, stand_in=stand_in)


def test_options_that_digits_do_not_have():
    with pytest.raises(TypeError, match=r"fixed splits.*\['test_split'\]"):
        data.load("digits", test_split="train")
