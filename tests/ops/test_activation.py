# SPDX-License-Identifier: Apache-2.0
"""Hard activations: values, and torch's gradients at the kinks."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efficient_layers import ops

X = jnp.array([-5.0, -3.0, -2.5, 0.0, 1.0, 3.0, 4.0])


@pytest.mark.fast
def test_values_and_gradients_by_hand():
    np.testing.assert_allclose(ops.hard_sigmoid(X), [0, 0, 0.5 / 6, 0.5, 4 / 6, 1, 1], atol=1e-7)
    gate = jax.grad(lambda x: ops.hard_sigmoid(x).sum())(X)
    np.testing.assert_allclose(gate, [0, 0, 1 / 6, 1 / 6, 1 / 6, 0, 0])
    np.testing.assert_allclose(ops.hard_swish(X), [0, 0, -2.5 * 0.5 / 6, 0, 4 / 6, 3, 4], atol=1e-7)
    swish = jax.grad(lambda x: ops.hard_swish(x).sum())(X)
    np.testing.assert_allclose(swish, [0, 0, -2.5 / 3 + 0.5, 0.5, 1 / 3 + 0.5, 1, 1], atol=1e-7)


@pytest.mark.fast
@pytest.mark.parametrize("name", ["hard_sigmoid", "hard_swish"])
def test_forward_mode_second_derivative_and_dtype(name):
    act = getattr(ops, name)
    slope = jax.grad(lambda x: act(x).sum())(X)
    np.testing.assert_allclose(jax.jvp(act, (X,), (2 * X,))[1], 2 * X * slope)
    curvature = jax.vmap(jax.hessian(act))(X)
    inside = (X > -3) & (X < 3)
    np.testing.assert_allclose(curvature, inside / 3 if name == "hard_swish" else 0 * X)
    assert act(X.astype(jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.oracle
@pytest.mark.parametrize(("name", "theirs"), [("hard_sigmoid", "sigmoid"), ("hard_swish", "swish")])
def test_torch_agrees_at_the_kinks_too(name, theirs):
    torch = pytest.importorskip("torch", reason="torch is the oracle; CI installs it")
    tx = torch.tensor(np.asarray(X), requires_grad=True)
    ty = getattr(torch.nn.functional, f"hard{theirs}")(tx)
    ty.sum().backward()
    act = getattr(ops, name)
    np.testing.assert_allclose(act(X), ty.detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(jax.grad(lambda x: act(x).sum())(X), tx.grad.numpy(), atol=1e-6)


@pytest.mark.fast
def test_gelu_is_the_integral():
    """Against math.erf in float64; first and second derivative against differences of it."""
    x = np.linspace(-6, 6, 49)

    def exact(x):
        return np.array([v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x])

    np.testing.assert_allclose(ops.gelu(jnp.float32(x)), exact(x), atol=2e-6)
    step = 1e-4
    slope = (exact(x + step) - exact(x - step)) / (2 * step)
    np.testing.assert_allclose(jax.vmap(jax.grad(ops.gelu))(jnp.float32(x)), slope, atol=2e-6)
    curvature = (exact(x + step) - 2 * exact(x) + exact(x - step)) / step**2
    np.testing.assert_allclose(
        jax.vmap(jax.hessian(ops.gelu))(jnp.float32(x)), curvature, atol=1e-5
    )
    assert ops.gelu(jnp.ones(2, jnp.bfloat16)).dtype == jnp.bfloat16
