# SPDX-License-Identifier: Apache-2.0
"""Winograd's filters against a convolution in float64, under every transform."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efficient_layers import ops
from efficient_layers.ops import winograd
from efficient_layers.ops.trilinear import convolve
from efficient_layers.ops.window import Window

# x shape, padding: F(4x4) and F(2x2), whole tiles and cut ones, one block of images and several.
CASES = {
    "F4": ((13, 16, 16, 32), ((1, 1), (1, 1))),
    "F4, uneven": ((4, 21, 39, 32), ((0, 2), (2, 1))),
    "F4, blocks": ((9, 27, 27, 32), ((1, 1), (1, 1))),
    "F2": ((16, 6, 7, 33), ((1, 1), (1, 1))),
    "F2, valid": ((100, 4, 6, 32), ((0, 0), (0, 0))),
}
OUT = 34


def problem(name):
    """(window, x, w, g) of a case."""
    shape, padding = CASES[name]
    draw = np.random.default_rng(0).normal
    window = Window(
        shape,
        (3, 3, shape[-1], OUT),
        (1, 1),
        padding,
        (1, 1),
        (1, 1),
        1,
        np.dtype("float32"),
    )
    return window, *(jnp.asarray(draw(size=s), jnp.float32) for s in (shape, window.w, window.y))


def float64_convolution(window, x, w, g):
    """y, dx and dw by nine products each, in NumPy."""
    x, w, g = (np.asarray(a, np.float64) for a in (x, w, g))
    padded = np.pad(x, ((0, 0), *window.padding, (0, 0)))
    _, height, width, _ = window.y
    y, dx, dw = np.zeros(window.y), np.zeros(padded.shape), np.zeros(window.w)
    for a, b in np.ndindex(3, 3):
        part = (slice(None), slice(a, a + height), slice(b, b + width))
        y += padded[part] @ w[a, b]
        dx[part] += g @ w[a, b].T
        dw[a, b] = np.einsum("nhwc,nhwo->co", padded[part], g)
    (top, _), (left, _) = window.padding
    return y, dx[:, top : top + x.shape[1], left : left + x.shape[2]], dw


def error(got, expected):
    """The largest error in units of the largest number."""
    return np.abs(np.asarray(got, np.float64) - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("name", CASES)
def test_forward_and_gradients_are_those_of_float64(name):
    window, x, w, g = problem(name)
    assert winograd.serves(window)

    @jax.jit
    def everything(x, w, g):
        y, pull = jax.vjp(lambda x, w: convolve(winograd.Winograd(window), x, w), x, w)
        return y, *pull(g)

    budget = 1e-5 if name.startswith("F4") else 2e-6
    for got, expected in zip(
        everything(x, w, g), float64_convolution(window, x, w, g), strict=True
    ):
        assert error(got, expected) < budget, name


@pytest.mark.fast
def test_vmap_and_forward_mode_are_those_of_the_reference():
    _, x, w, _ = problem("F2")
    xs, ws = jnp.stack([x, x[::-1]]), jnp.stack([w, -w[::-1]])

    def convolution(x, w):
        numbers = ("NHWC", "HWIO", "NHWC")
        return ops.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=numbers)

    def everything(xs, ws):
        over_x = jax.vmap(convolution, (0, None))(xs, ws[0])
        return over_x, jax.vmap(convolution)(xs, ws), jax.jvp(convolution, (x, w), (x[::-1], w))

    with ops.lowering("cpu"):
        got = jax.jit(everything)(xs, ws)
    with ops.lowering("reference"):
        expected = jax.jit(everything)(xs, ws)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert error(a, np.asarray(b)) < 5e-6


def serves(shape=(8, 28, 28, 64), out=64, *, dtype="float32", strides=(1, 1), precision=None):
    padding, ones, kernel = ((1, 1), (1, 1)), (1, 1), (3, 3, shape[-1], out)
    return winograd.serves(
        Window(shape, kernel, strides, padding, ones, ones, 1, np.dtype(dtype), precision)
    )


@pytest.mark.fast
def test_only_wide_float32_of_no_set_precision_comes_here():
    assert serves()
    assert not serves(out=16)
    assert not serves((1, 4, 4, 64))
    assert not serves(dtype=jnp.bfloat16)
    assert not serves(strides=(2, 2))
    assert not serves(precision=jax.lax.Precision.HIGHEST)
    with jax.default_matmul_precision("highest"):
        assert not serves()
