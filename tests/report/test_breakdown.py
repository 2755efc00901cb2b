# SPDX-License-Identifier: Apache-2.0
"""Shares of a cost table."""

import pytest

from efficient_layers.report import breakdown

pytestmark = pytest.mark.fast


def _layer(name, kind, macs, params, activations=0):
    return {"name": name, "kind": kind, "macs": macs, "params": params, "activations": activations}


def test_rows_carry_shares_of_the_sum_and_bars_of_the_largest():
    cost = {"layers": [_layer("a", "conv", 75, 10), _layer("b", "linear", 25, 30)]}
    a, b = breakdown.rows(cost)
    assert (a.number, b.number) == (1, 2)
    assert (a.cells["macs"].share, a.cells["macs"].bar) == (75.0, 100.0)
    assert (b.cells["macs"].share, b.cells["macs"].bar) == (25.0, pytest.approx(100 / 3))
    assert b.cells["params"].share == 75.0
    assert a.cells["activations"].share == 0.0


def test_strips_sum_by_kind_and_small_kinds_join():
    layers = [_layer(str(i), f"kind {i % 8}", 2 ** (7 - i % 8), 1) for i in range(16)]
    rows = breakdown.rows({"layers": layers})
    legend, strips = breakdown.strips(rows)
    assert len(legend) == 6
    assert legend[0] == "kind 0"
    assert legend[-1] == "other kinds"
    macs = {kind: share for kind, share, _ in strips[0].parts}
    assert macs["kind 0"] == pytest.approx(100 * 128 / 255)
    assert sum(macs.values()) == pytest.approx(100)
    assert [row.colour for row in rows[:8]] == [0, 1, 2, 3, 4, 5, 5, 5]


def test_largest_is_by_macs():
    rows = breakdown.rows({"layers": [_layer(str(i), "conv", i, 1) for i in range(50)]})
    assert [row.name for row in breakdown.largest(rows)] == [str(i) for i in range(49, 39, -1)]


@pytest.mark.parametrize("cost", [{}, {"layers": None}, {"layers": []}, {"layers": ["x", None]}])
def test_no_layers_give_no_rows(cost):
    assert breakdown.rows(cost) == []
    assert breakdown.strips([])[0] == []


def test_bad_numbers_count_as_nothing():
    (row,) = breakdown.rows({"layers": [{"macs": "many", "params": None, "shape": "odd"}]})
    assert row.name == "(no name)"
    assert row.kind == "no kind"
    assert [cell.share for cell in row.cells.values()] == [0.0, 0.0, 0.0]
