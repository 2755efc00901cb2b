# SPDX-License-Identifier: Apache-2.0
"""Rows of the latency table."""

import pytest

from efficient_layers.report import speed

pytestmark = pytest.mark.fast


def test_rows_are_by_batch_size_with_bars_per_example():
    batch = {
        "16": {"median_ms": 8.0, "p10_ms": 7.2, "p90_ms": 9.6},
        "2": {"median_ms": 4.0, "p10_ms": 3.0, "p90_ms": 5.0, "compile_s": 2.0},
    }
    small, large = speed.rows({"batch": batch, "compile_s": 1.0})
    assert (small.batch, small.each, small.rate, small.compile_s) == (2, 2.0, 500.0, 2.0)
    assert (small.low, small.middle, small.high) == pytest.approx((60, 80, 100))
    assert (large.each, large.rate, large.compile_s) == (0.5, 2000.0, 1.0)
    assert large.middle == pytest.approx(20)


def test_incomplete_rows_are_left_out_or_filled_from_the_median():
    batch = {"1": {"median_ms": 2.0}, "4": {}, "x": {"median_ms": 1.0}, "8": None, "0": {}}
    (row,) = speed.rows({"batch": batch})
    assert (row.low, row.high) == (100.0, 100.0)
    assert speed.rows({}) == speed.rows({"batch": "none"}) == []
