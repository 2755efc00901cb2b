# SPDX-License-Identifier: Apache-2.0
"""GPTQ, AdaRound, bias correction and entropy calibration against loops and brute force."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from efficient_layers.compress.adaround import adaround
from efficient_layers.compress.bias_correction import bias_correction
from efficient_layers.compress.entropy import threshold
from efficient_layers.compress.gptq import gptq
from efficient_layers.compress.rounding_problem import Problem, kernel_of, matrices

DRAW = np.random.default_rng(0)


def problem(
    inputs: int, outputs: int, *, groups: int = 1, bits: int = 3, zero: bool = False, seed: int = 0
) -> Problem:
    """Of correlated inputs; a scale of its own for every pair of inputs where `zero`."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(groups, 40, inputs)) @ draw.normal(size=(groups, inputs, inputs))
    w = draw.normal(size=(groups, inputs, outputs))
    top = 2 ** (bits - 1) - 1
    scale = np.abs(w).max(1, keepdims=True) / top
    scale = scale * (1 + np.arange(inputs)[:, None] // 2 % 2 if zero else 1)
    offset = np.full(w.shape, 1.0 if zero else 0.0)
    moment = x.swapaxes(1, 2) @ x / 40
    return Problem(w, moment, np.broadcast_to(scale, w.shape), offset, -top - zero, top)


def nearest(p: Problem) -> np.ndarray:
    return np.clip(np.round(p.w / p.scale) + p.zero, p.least, p.most).astype(np.int64)


def brain_surgeon(p: Problem, damping: float, order: str) -> np.ndarray:
    """One weight after another: Optimal Brain Quantization's updates, without any factorisation."""
    codes = np.zeros(p.w.shape, np.int64)
    for g, o in np.ndindex(p.w.shape[0], p.w.shape[2]):
        hessian = 2 * p.moment[g]
        todo = np.arange(len(hessian))
        if order == "activation":
            todo = np.argsort(-np.diag(hessian), kind="stable")
        inverse = np.linalg.inv(hessian + damping * np.diag(hessian).mean() * np.eye(len(hessian)))
        w = p.w[g, :, o].copy()
        for i in todo:
            scale, zero = p.scale[g, i, o], p.zero[g, i, o]
            codes[g, i, o] = np.clip(np.round(w[i] / scale) + zero, p.least, p.most)
            error = (w[i] - scale * (codes[g, i, o] - zero)) / inverse[i, i]
            w -= inverse[:, i] * error
            inverse -= np.outer(inverse[:, i], inverse[i]) / inverse[i, i]
    return codes


@pytest.mark.parametrize("order", ["index", "activation"])
@pytest.mark.parametrize("settings", [{}, {"groups": 3}, {"zero": True, "bits": 4}], ids=str)
def test_gptq_is_optimal_brain_quantization_in_a_fixed_order(settings, order):
    p = problem(7, 5, **settings)
    codes = gptq(p, damping=0.02, order=order)
    np.testing.assert_array_equal(codes, brain_surgeon(p, 0.02, order))
    assert (codes != nearest(p)).any()


def test_gptq_over_blocks():
    p = problem(300, 2)
    np.testing.assert_array_equal(gptq(p), brain_surgeon(p, 0.01, "index"))
    assert p.errors(gptq(p)).sum() < 0.7 * p.errors(nearest(p)).sum()


@pytest.mark.oracle
@pytest.mark.parametrize("tiles", [{}, {1: 8}], ids=["channel", "group"])
def test_gptq_gives_qwix_s_codes(tiles):
    """At equal scales: qwix takes those of a group from the weights as they are by then."""
    core = pytest.importorskip("qwix.contrib.gptq_core", reason="qwix is not installed")
    qarray = pytest.importorskip("qwix._src.core.qarray", reason="qwix without its own parts")
    p = problem(24, 6, bits=4)
    how = qarray.HowToQuantize(
        qtype="int4", channelwise_axes=[0], tiled_axes=tiles, calibration_method="absmax"
    )
    w, moment = (np.asarray(a, np.float32) for a in (p.w[0].T, p.moment[0]))
    theirs, _ = core.quantize_weight(jnp.asarray(w), jnp.asarray(moment), how, blocksize=8)
    scale = np.asarray(theirs.scale, np.float64).T
    scale = np.repeat(scale, 24 // len(scale), 0)[None]
    codes = gptq(p._replace(scale=scale, least=-8, most=7))
    np.testing.assert_array_equal(codes[0], np.asarray(theirs.qvalue, np.int64).T)


def test_gptq_of_inputs_that_are_always_zero():
    p = problem(6, 4)
    dead = p.moment.copy()
    dead[:, 2] = dead[:, :, 2] = 0
    p = p._replace(moment=dead)
    np.testing.assert_array_equal(gptq(p)[:, 2], nearest(p)[:, 2])
    still = p._replace(moment=np.zeros_like(dead))
    np.testing.assert_array_equal(gptq(still), nearest(p))


def best(p: Problem) -> np.ndarray:
    """The least error of each output over all ways to round up and down."""
    floor = np.floor(p.w / p.scale) + p.zero
    ways = itertools.product((0, 1), repeat=p.w.shape[1])
    tried = [
        p.errors(np.clip(floor + np.array(up)[:, None], p.least, p.most).astype(np.int64))
        for up in ways
    ]
    return np.min(tried, axis=0)


@pytest.mark.parametrize(("own", "bound", "equal"), [(0.5, 1.15, 0.85), (0.0, 1.6, 0.3)])
def test_adaround_is_near_the_best_of_all_roundings(own, bound, equal):
    """`own`: the share of the inputs' variance that is each one's own. Nearest: 1.11 and 2.57."""
    ratios, plain = [], []
    for seed in range(4):
        p = problem(8, 20, seed=seed)
        alone = np.eye(8) * np.diagonal(p.moment, axis1=1, axis2=2).mean()
        p = p._replace(moment=(1 - own) * p.moment + own * alone)
        ratios.append(p.errors(p.better(adaround(p), nearest(p))) / best(p))
        plain.append(p.errors(nearest(p)) / best(p))
    assert np.mean(ratios) < bound
    assert np.mean(ratios) - 1 < 0.35 * (np.mean(plain) - 1)
    assert np.mean(np.array(ratios) < 1 + 1e-9) > equal


def test_adaround_keeps_to_floor_and_ceiling_and_leaves_the_grid_alone():
    p = problem(6, 4, zero=True)
    floor = np.floor(p.w / p.scale) + p.zero
    ends = [np.clip(floor + up, p.least, p.most) for up in (0, 1)]
    codes = adaround(p, iterations=200)
    assert ((codes == ends[0]) | (codes == ends[1])).all()
    on_grid = p._replace(w=p.values(codes))
    np.testing.assert_array_equal(adaround(on_grid, iterations=200), codes)


def test_better_of_two_output_by_output():
    p = problem(6, 4)
    codes, plain = nearest(p).copy(), nearest(p)
    codes[:, 0, :2] += 1
    mixed = p.better(codes, plain)
    np.testing.assert_allclose(
        p.errors(mixed), np.minimum(p.errors(codes), p.errors(plain)), rtol=1e-12
    )


def test_errors_are_those_of_the_outputs():
    x = DRAW.normal(size=(9, 5))
    p = problem(5, 3)._replace(moment=(x.T @ x / 9)[None])
    codes = nearest(p)
    expected = np.square(x @ (p.scale[0] * codes[0] - p.w[0])).mean(0)
    np.testing.assert_allclose(p.errors(codes)[0], expected, rtol=1e-12)


def test_matrices_of_a_grouped_kernel():
    kernel = DRAW.normal(size=(3, 2, 4, 6))  # two groups of 4 channels in, 3 out
    found = matrices(kernel, 2)
    assert found.shape == (2, 24, 3)
    assert found[1, 2 * 4 + 3, 2] == kernel[1, 0, 3, 5]
    np.testing.assert_array_equal(kernel_of(found, kernel.shape), kernel)


def test_bias_correction_is_the_mean_of_the_outputs_error():
    x, w = DRAW.normal(size=(2, 50, 3)) + 1, DRAW.normal(size=(2, 3, 4))
    rounded = np.round(w)
    shift = bias_correction(w, rounded, x.mean(1))
    error = (x @ w - x @ rounded).mean(1)
    np.testing.assert_allclose(shift, error.reshape(-1), rtol=1e-12)


def entropy_by_hand(counts: list[int], levels: int) -> int:
    """Migacz' slide 36, a loop a line."""
    divergences = {}
    for i in range(levels, len(counts) + 1):
        p = [float(c) for c in counts[:i]]
        p[-1] += sum(counts[i:])
        q = [0.0] * i
        for level in range(levels):
            bins = [b for b in range(i) if b * levels // i == level]
            filled = [b for b in bins if counts[b] > 0]
            for b in filled:
                q[b] = sum(counts[c] for c in bins) / len(filled)
        total_p, total_q = sum(p), sum(q)
        divergence = 0.0
        for a, b in zip(p, q, strict=True):
            if a > 0:
                divergence += np.inf if b == 0 else a / total_p * np.log(a / total_p * total_q / b)
        divergences[i] = divergence
    return min(divergences, key=divergences.get)


@pytest.mark.parametrize(
    "counts",
    [
        [40, 30, 22, 15, 11, 8, 5, 3, 0, 0, 0, 1],
        [9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9],
        [0, 5, 0, 7, 20, 20, 3, 0, 1, 0, 0, 2],
        [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    ],
)
def test_entropy_threshold_is_the_slide_s(counts):
    i = entropy_by_hand(counts, 4)
    got = threshold(np.array(counts, np.float64), 0.5, levels=4)
    assert got == min(i + 0.5, 12) * 0.5


def test_entropy_cuts_off_an_outlier():
    counts, _ = np.histogram(np.abs(DRAW.normal(size=100_000)), 2048, (0, 20))
    counts[-1] += 1
    assert 2.5 < threshold(counts.astype(np.float64), 20 / 2048) < 6
