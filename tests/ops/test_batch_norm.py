# SPDX-License-Identifier: Apache-2.0
"""Batch normalisation: the closed derivative against autodiff, NumPy and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from efficient_layers import ops

pytestmark = pytest.mark.fast

MASK = jnp.asarray(np.random.default_rng(2).random((3, 5, 4, 1)) < 0.6)
CASES = {
    "plain": {},
    "mask": {"mask": MASK},
    "two passes": {"fast_variance": False},
    "two passes, mask": {"fast_variance": False, "mask": MASK},
    "channels first": {"axis": 1},
}


def draw(*shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(1.0, 2.0, shape), dtype)


def under(name, function, *args):
    with ops.lowering(name):
        return jax.jit(function)(*args)


def close(got, expected, tolerance=1e-5):
    def leaf(a, b):
        assert a.dtype == b.dtype
        scale = max(1.0, np.abs(np.asarray(b, np.float32)).max())
        np.testing.assert_allclose(
            np.asarray(a, np.float32) / scale, np.asarray(b, np.float32) / scale, atol=tolerance
        )

    jax.tree.map(leaf, got, expected)


def test_forward_is_numpys_in_float64():
    x, scale, bias = draw(3, 5, 4, 6), draw(6, seed=1), draw(6, seed=2)
    y, mean, var = ops.batch_norm(x, scale, bias, epsilon=1e-3)
    wide = np.asarray(x, np.float64)
    expected = (wide - wide.mean((0, 1, 2))) / np.sqrt(wide.var((0, 1, 2)) + 1e-3)
    np.testing.assert_allclose(y, expected * scale + bias, atol=1e-5)
    np.testing.assert_allclose(mean, wide.mean((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(var, wide.var((0, 1, 2)), atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_every_derivative_is_the_references(name):
    x = draw(3, 5, 4, 6)
    channels = x.shape[CASES[name].get("axis", -1)]
    scale, bias = draw(channels, seed=1), draw(channels, seed=2)

    def loss(x, scale, bias):
        y, mean, var = ops.batch_norm(x, scale, bias, **CASES[name])
        return (jnp.sin(y) * draw(*y.shape, seed=3)).sum() + (mean**3).sum() + (var**2).sum()

    def everything(*primals):
        gradient = jax.grad(loss, argnums=(0, 1, 2))
        tangents = tuple(draw(*p.shape, seed=4) for p in primals)
        return loss(*primals), gradient(*primals), jax.jvp(gradient, primals, tangents)

    primals = (x, scale, bias)
    close(under("cpu", everything, *primals), under("reference", everything, *primals))


@pytest.mark.slow
@pytest.mark.parametrize("with_scale", [True, False])
def test_gradient_is_the_finite_difference(with_scale):
    x, scale = draw(4, 3, 2), draw(2, seed=1) if with_scale else None

    def normalise(x):
        return ops.batch_norm(x, scale, epsilon=1e-2)

    check_grads(normalise, (x,), order=2, atol=3e-2, rtol=3e-2)


@pytest.mark.slow
def test_jacobians_forward_and_backward_agree():
    x = draw(3, 2, 2)

    def normalise(x):
        return ops.batch_norm(x)[0]

    close(jax.jacfwd(normalise)(x), jax.jacrev(normalise)(x))
    assert jax.hessian(lambda x: (normalise(x) ** 3).sum())(x).shape == (3, 2, 2, 3, 2, 2)


def test_bfloat16_in_and_out_with_float32_statistics():
    x = draw(16, 8, 8, 4, dtype=jnp.bfloat16)
    y, mean, var = ops.batch_norm(x)
    assert (y.dtype, mean.dtype, var.dtype) == (jnp.bfloat16, jnp.float32, jnp.float32)
    np.testing.assert_allclose(mean, np.asarray(x, np.float64).mean((0, 1, 2)), atol=1e-4)
    gradient = jax.grad(lambda x: ops.batch_norm(x)[0].astype(jnp.float32)[0].sum())(x)
    assert gradient.dtype == jnp.bfloat16


def test_statistics_over_a_named_axis_are_those_of_the_whole_batch():
    x, scale, bias = draw(4, 3, 5), draw(5, seed=1), draw(5, seed=2)

    def whole(x):
        return (ops.batch_norm(x, scale, bias)[0] ** 3).sum()

    def parts(x):
        part = jax.vmap(lambda x: ops.batch_norm(x, scale, bias, axis_name="b")[0], axis_name="b")
        return (part(x) ** 3).sum()

    close(jax.grad(parts)(x), jax.grad(whole)(x))


def test_scale_of_another_length_is_an_error():
    with pytest.raises(ValueError, match=r"scale of shape \(4,\) .* Got \(3,\)"):
        ops.batch_norm(jnp.ones((2, 4)), jnp.ones(3))


def test_relu6_has_torchs_gradient_at_its_corners():
    x = jnp.array([-1.0, 0.0, 3.0, 6.0, 7.0])
    np.testing.assert_array_equal(ops.relu6(x), [0, 0, 3, 6, 6])
    np.testing.assert_array_equal(jax.grad(lambda x: ops.relu6(x).sum())(x), [0, 0, 1, 0, 0])
    np.testing.assert_array_equal(jax.jvp(ops.relu6, (x,), (2 * x,))[1], [0, 0, 6, 0, 0])
