# SPDX-License-Identifier: Apache-2.0
"""Fronts and hypervolumes against hand-computed values and Monte Carlo."""

import numpy as np
import pytest

from efficient_layers.report import pareto

pytestmark = pytest.mark.fast
# (accuracy, MACs): a is cheap, b good, c beaten by b, d equal to b, e beaten by all but a.
RUNS = {"a": (0.90, 1.0), "b": (0.95, 2.0), "c": (0.94, 3.0), "d": (0.95, 2.0), "e": (0.93, 3.0)}
UP_DOWN = (True, False)


def test_front_keeps_equal_points_and_drops_the_beaten():
    assert pareto.front(RUNS, maximise=UP_DOWN) == ["a", "b", "d"]


def test_dominated_names_who_dominates_whom():
    assert pareto.dominated(RUNS, maximise=UP_DOWN) == {"c": ["b", "d"], "e": ["b", "c", "d"]}


def test_directions_decide():
    points = {"low": (1.0, 1.0), "high": (2.0, 2.0)}
    assert pareto.front(points, maximise=(True, True)) == ["high"]
    assert pareto.front(points, maximise=(False, False)) == ["low"]
    assert pareto.front(points, maximise=UP_DOWN) == ["low", "high"]


def test_dominance_is_that_of_the_definition_on_random_points():
    values = np.random.default_rng(0).integers(0, 5, (30, 3))
    points = {str(i): tuple(map(float, row)) for i, row in enumerate(values)}
    found = pareto.dominated(points, maximise=(False,) * 3)
    for i, p in enumerate(values):
        expected = [str(j) for j, q in enumerate(values) if (q <= p).all() and (q < p).any()]
        assert found.get(str(i), []) == expected


def test_hypervolume_of_a_staircase_by_hand():
    # Minimise both, reference (4, 4): columns of width 1, heights 1, 2, 3.
    points = [(1.0, 3.0), (2.0, 2.0), (3.0, 1.0)]
    assert pareto.hypervolume(points, (4.0, 4.0), maximise=(False, False)) == 6.0


def test_hypervolume_with_mixed_directions_by_hand():
    # Accuracy up from 0.8, cost down from 4: 0.1 x 3 + 0.05 x 2.
    volume = pareto.hypervolume([(0.9, 1.0), (0.95, 2.0)], (0.8, 4.0), maximise=UP_DOWN)
    assert volume == pytest.approx(0.4)


def test_hypervolume_ignores_dominated_duplicate_and_outside_points():
    base = pareto.hypervolume([(1.0, 1.0)], (2.0, 2.0), maximise=(False, False))
    more = [(1.0, 1.0), (1.5, 1.5), (1.0, 1.0), (0.0, 2.0), (5.0, -1.0)]
    assert base == 1.0
    assert pareto.hypervolume(more, (2.0, 2.0), maximise=(False, False)) == 1.0
    assert pareto.hypervolume([], (2.0, 2.0), maximise=(False, False)) == 0.0


def test_hypervolume_in_three_dimensions_by_hand():
    # Two 1x2x2 slabs of [0, 2]^3 from opposite sides: 4 + 4 - their overlap 1x1x2 = 6.
    points = [(2.0, 1.0, 2.0), (1.0, 2.0, 2.0)]
    assert pareto.hypervolume(points, (0.0, 0.0, 0.0), maximise=(True,) * 3) == 6.0


@pytest.mark.parametrize("dimensions", [1, 2, 3, 4, 5])
def test_hypervolume_against_monte_carlo(dimensions):
    rng = np.random.default_rng(dimensions)
    points = rng.uniform(0, 1, (12, dimensions))
    samples = rng.uniform(0, 1, (40_000, dimensions))
    inside = (points[None] <= samples[:, None]).all(-1).any(-1)
    exact = pareto.hypervolume(points.tolist(), (1.0,) * dimensions, maximise=(False,) * dimensions)
    deviation = np.sqrt(inside.mean() * (1 - inside.mean()) / len(samples))
    assert exact == pytest.approx(inside.mean(), abs=4 * deviation + 1e-9)


def test_nadir_is_the_worst_pushed_out_by_a_tenth_of_the_range():
    points = [(0.9, 10.0), (0.8, 30.0)]
    assert pareto.nadir(points, maximise=UP_DOWN) == pytest.approx((0.79, 32.0))
    assert pareto.nadir([(0.5, 0.0)], maximise=UP_DOWN) == pytest.approx((0.45, 0.1))


@pytest.mark.parametrize("maximise", [(False, False), (True, False), (False, True), (True, True)])
def test_staircase_encloses_the_hypervolume(maximise):
    signs = np.where(maximise, -1.0, 1.0)
    points = [(signs[0] * a, signs[1] * b) for a, b in [(1, 5), (2, 3), (4, 1)]]
    reference = (signs[0] * 6.0, signs[1] * 7.0)
    corners = [*pareto.staircase(points, reference), reference]
    x, y = np.array(corners).T
    shoelace = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
    assert shoelace == pytest.approx(pareto.hypervolume(points, reference, maximise=maximise))
    assert set(points) <= set(corners)


def test_errors_say_which_point_and_what_is_wrong():
    with pytest.raises(ValueError, match=r"'a' must be finite; got \(nan, 1.0\)"):
        pareto.front({"a": (float("nan"), 1.0)}, maximise=UP_DOWN)
    with pytest.raises(ValueError, match="'a' has 3 objectives but maximise has 2"):
        pareto.dominated({"a": (1.0, 1.0, 1.0)}, maximise=UP_DOWN)
    with pytest.raises(ValueError, match="needs points with 2 objectives"):
        pareto.nadir([], maximise=UP_DOWN)
