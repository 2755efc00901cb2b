# SPDX-License-Identifier: Apache-2.0
"""The fused loop for short sums, and the convolutions that use it, against NumPy and float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efficient_layers import ops
from efficient_layers.ops.thin import is_thin, thin_dot

NUMBERS = ("NHWC", "HWIO", "NHWC")


@pytest.mark.fast
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_loop_is_the_product(dtype):
    draw = np.random.default_rng(0).normal
    x, w = jnp.asarray(draw(size=(2, 3, 5)), dtype), jnp.asarray(draw(size=(5, 32)), dtype)
    got = thin_dot((x[..., k] for k in range(5)), w)
    expected = np.asarray(x, np.float64) @ np.asarray(w, np.float64)
    assert got.dtype == dtype
    np.testing.assert_allclose(
        np.asarray(got, np.float64), expected, atol=1e-5 if dtype == jnp.float32 else 0.03
    )


@pytest.mark.fast
@pytest.mark.parametrize(("size", "c", "kernel", "strides"), [(9, 3, 3, 2), (5, 16, 1, 2)])
def test_a_stem_and_a_narrow_1x1_are_the_reference_under_every_transform(size, c, kernel, strides):
    draw = np.random.default_rng(0).normal
    x = jnp.asarray(draw(size=(2, size, size, c)), jnp.float32)
    w = jnp.asarray(draw(size=(kernel, kernel, c, 32)), jnp.float32)
    assert is_thin(kernel**2 * c, 32)

    def convolution(x, w):
        return ops.conv_general_dilated(
            x, w, (strides, strides), [(kernel // 2,) * 2] * 2, dimension_numbers=NUMBERS
        )

    def everything(x, w):
        gradient = jax.grad(lambda x, w: (convolution(x, w) ** 2).sum(), argnums=(0, 1))
        members = jax.vmap(convolution)(jnp.stack([x, -x]), jnp.stack([w, w[::-1]]))
        return (
            convolution(x, w),
            gradient(x, w),
            jax.jvp(gradient, (x, w), (w.sum() * x, w)),
            members,
        )

    results = []
    for name in ("cpu", "reference"):
        with ops.lowering(name):
            results.append(jax.tree.leaves(jax.jit(everything)(x, w)))
    for got, expected in zip(*results, strict=True):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(got / scale, expected / scale, rtol=0, atol=2e-6)
