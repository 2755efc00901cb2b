# SPDX-License-Identifier: Apache-2.0
"""LinearAttention: chunked = recurrent = quadratic, decoding, causality, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import layers
from efficient_layers.ops import linear_attention as op
from tests.layers.decoding import check_decoding, check_no_leak, check_step_is_constant


def make(**kwargs):
    return layers.LinearAttention(6, 2, rngs=nnx.Rngs(0), **kwargs)


@pytest.mark.fast
@pytest.mark.parametrize(("n", "chunk"), [(1, 4), (7, 3), (13, 4), (8, 8)])
def test_the_three_forms_agree(n, chunk):
    draw = np.random.default_rng(0)
    q, k = draw.uniform(size=(2, 2, 3, n, 5)).astype(np.float32)
    v = draw.normal(size=(2, 3, n, 4)).astype(np.float32)
    chunked, sums = jax.jit(lambda *qkv: op.causal_linear_attention(*qkv, chunk=chunk))(q, k, v)
    quadratic = op.quadratic_linear_attention(q, k, v, causal=True)
    np.testing.assert_allclose(chunked, quadratic, atol=2e-6)
    np.testing.assert_allclose(op.recurrent_linear_attention(q, k, v), quadratic, atol=2e-6)
    np.testing.assert_allclose(sums.weights, k.sum(-2), rtol=1e-5)
    whole = op.quadratic_linear_attention(q, k, v)
    np.testing.assert_allclose(op.linear_attention(q, k, v), whole, atol=2e-6)


def test_nothing_leaks_and_decoding_is_the_whole():
    layer = make(causal=True, chunk_size=4)
    check_no_leak(layer, 10)
    check_decoding(layer, 9)
    check_step_is_constant(layer)


def test_sums_are_kept_in_float32():
    layer = make(causal=True, dtype=jnp.bfloat16)
    state = layer.init_state((2, 3))
    y, state = layer.decode(jnp.ones((2, 3, 1, 6), jnp.bfloat16), state)
    assert y.dtype == jnp.bfloat16
    assert {s.dtype for s in state} == {np.dtype("float32")}
    assert state.values.shape == (2, 3, 2, 3, 3)


def test_weights_that_underflow_give_zeros():
    zeros, ones = np.zeros((1, 3, 4), np.float32), np.ones((1, 3, 4), np.float32)
    for y in (
        op.linear_attention(zeros, ones, ones),
        op.causal_linear_attention(zeros, ones, ones)[0],
    ):
        np.testing.assert_array_equal(y, 0 * ones)


@pytest.mark.fast
def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"num_heads that divide in_features=6.*Got num_heads=4"):
        layers.LinearAttention(6, 4, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"at least 1. Got in_features=6, num_heads=0"):
        layers.LinearAttention(6, 0, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"chunk_size of at least 1. Got 0"):
        make(chunk_size=0)
    with pytest.raises(ValueError, match=r"\(\*batch, positions, 6\). Got \(2, 3, 5\)"):
        make()(jnp.ones((2, 3, 5)))
    with pytest.raises(ValueError, match=r"decodes where it is causal. Got causal=False"):
        make().init_state(1)
    layer = make(causal=True)
    with pytest.raises(ValueError, match=r"shapes .*\(2, 2, 3, 3\).*Got.*\(1, 2, 3, 3\)"):
        layer.decode(jnp.ones((2, 1, 6)), layer.init_state(1))
