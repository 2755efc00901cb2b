# SPDX-License-Identifier: Apache-2.0
"""Numbers as people read them."""

import pytest

from efficient_layers.report import quantity

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (quantity.count, 0, "0"),
        (quantity.count, 999, "999"),
        (quantity.count, 3_504_872, "3.5 M"),
        (quantity.count, 300_774_272, "301 M"),
        (quantity.exact, 3_504_872, "3,504,872"),
        (quantity.size, 512, "512 B"),
        (quantity.size, 1536, "1.5 KiB"),
        (quantity.size, 3 * 2**30, "3 GiB"),
        (quantity.percent, 0.98333, "98.3 %"),
        (quantity.milliseconds, 0.4123, "412 µs"),
        (quantity.milliseconds, 12.34, "12.3 ms"),
        (quantity.milliseconds, 2500, "2.5 s"),
        (quantity.seconds, 48.12, "48.1 s"),
        (quantity.seconds, 200, "3 min 20 s"),
        (quantity.seconds, 7500, "2 h 5 min"),
        (quantity.digits, 0.01234, "0.0123"),
        (quantity.digits, 123456.7, "123,457"),
        (quantity.digits, 1e-7, "1.00e-07"),
        (quantity.digits, -2.5, "-2.5"),
    ],
)
def test_reads_well(function, value, text):
    assert function(value).replace("\u00a0", " ") == text


@pytest.mark.parametrize("value", [None, "3", True, float("nan"), float("inf"), [1]])
def test_what_is_no_finite_number_is_missing(value):
    assert quantity.number(value) is None
    for function in (quantity.count, quantity.size, quantity.seconds, quantity.percent):
        assert function(value) == quantity.MISSING
