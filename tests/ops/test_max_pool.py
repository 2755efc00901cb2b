# SPDX-License-Identifier: Apache-2.0
"""Max pooling: the fast form against loops, XLA's window reduction and torch, ties included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efficient_layers import ops

# (image, window, strides, padding, ceil)
CASES = {
    "ResNet": ((2, 9, 8, 3), 3, 2, 1, False),
    "SqueezeNet": ((2, 8, 7, 3), 3, 2, 0, True),
    "VGG": ((2, 7, 6, 3), 2, 2, 0, False),
    "padded and ceil": ((1, 8, 5, 2), 3, 2, 1, True),
    "window 2, padded": ((1, 9, 8, 2), 2, 2, 1, True),
}
pytestmark = pytest.mark.fast
FIRST, *OTHERS = CASES
each = pytest.mark.parametrize(
    "name", [FIRST, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]
)


def problem(name):
    """The pooling of a case, and images with many equal values."""
    shape, window, strides, padding, ceil = CASES[name]
    x = np.random.default_rng(0).integers(-2, 3, shape).astype(np.float32)
    return lambda x: ops.max_pool(x, window, strides, padding=padding, ceil=ceil), jnp.asarray(x)


def everything(function, x):
    """Output, gradient, tangent, and the gradient of the gradient."""
    y, vjp = jax.vjp(function, x)
    weight = jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)

    def loss(x):
        return (weight * function(x) ** 3).sum()

    twice = jax.grad(lambda x: (jax.grad(loss)(x) ** 2).sum())
    return y, vjp(weight)[0], jax.jvp(function, (x,), (jnp.sin(x),))[1], twice(x)


@each
def test_every_derivative_is_that_of_the_reference(name):
    function, x = problem(name)
    with ops.lowering("reference"):
        expected = jax.jit(lambda x: everything(function, x))(x)
    with ops.lowering("cpu"):
        got = jax.jit(lambda x: everything(function, x))(x)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@each
def test_against_loops(name):
    function, x = problem(name)
    _, window, strides, padding, _ = CASES[name]
    y = np.asarray(function(x))
    for i in range(y.shape[1]):
        for j in range(y.shape[2]):
            top, left = i * strides - padding, j * strides - padding
            rows, columns = slice(max(top, 0), top + window), slice(max(left, 0), left + window)
            np.testing.assert_array_equal(y[:, i, j], x[:, rows, columns].max((1, 2)))


def test_vmap_and_bfloat16():
    function, x = problem("ResNet")
    many = jnp.stack([x, -x]).astype(jnp.bfloat16)
    got = jax.vmap(function)(many)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_array_equal(got[1], function(-x.astype(jnp.bfloat16)))


@pytest.mark.parametrize(
    ("x", "arguments", "error", "message"),
    [
        (jnp.ones((4, 4, 3)), (2, 2), ValueError, r"\(b, h, w, c\). Got \(4, 4, 3\)"),
        (jnp.ones((1, 4, 4, 3), int), (2, 2), TypeError, "floating-point input. Got int"),
        (jnp.ones((1, 4, 4, 3)), (0, 2), ValueError, "Got window=0, strides=2"),
        (jnp.ones((1, 2, 4, 3)), (3, 2), ValueError, "at least 3x3. Got .* larger images"),
    ],
)
def test_bad_input(x, arguments, error, message):
    with pytest.raises(error, match=message):
        ops.max_pool(x, *arguments)


@pytest.mark.oracle
@pytest.mark.parametrize("name", CASES)
def test_torch(name):
    torch = pytest.importorskip("torch", reason="torch is the oracle; CI installs it")
    function, x = problem(name)
    _, window, strides, padding, ceil = CASES[name]
    theirs = torch.tensor(np.moveaxis(np.asarray(x), -1, 1), requires_grad=True)
    y = torch.nn.functional.max_pool2d(theirs, window, strides, padding, ceil_mode=ceil)
    (y**2).sum().backward()
    np.testing.assert_array_equal(function(x), np.moveaxis(y.detach().numpy(), 1, -1))
    gradient = jax.grad(lambda x: (function(x) ** 2).sum())(x)
    np.testing.assert_array_equal(gradient, np.moveaxis(theirs.grad.numpy(), 1, -1))
