# SPDX-License-Identifier: Apache-2.0
"""GatedLinearAttention: chunked = recurrent = quadratic, also where decays are strong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import layers
from efficient_layers.ops import gated_linear_attention as op
from efficient_layers.ops.linear_attention import causal_linear_attention
from tests.layers.decoding import check_decoding, check_no_leak, check_step_is_constant


def make(**kwargs):
    return layers.GatedLinearAttention(6, 2, rngs=nnx.Rngs(0), **kwargs)


def sequence(n):
    draw = np.random.default_rng(0)
    q, k, logits = draw.normal(size=(3, 2, 3, n, 5)).astype(np.float32)
    v = draw.normal(size=(2, 3, n, 4)).astype(np.float32)
    return q, k, v, -np.log1p(np.exp(-logits))


@pytest.mark.fast
@pytest.mark.parametrize(("n", "chunk"), [(1, 4), (13, 4), (9, 8)])
def test_the_three_forms_agree(n, chunk):
    arrays = sequence(n)
    quadratic = op.quadratic_gated_linear_attention(*arrays)
    chunked, _ = jax.jit(lambda *a: op.gated_linear_attention(*a, chunk=chunk))(*arrays)
    np.testing.assert_allclose(chunked, quadratic, atol=5e-6)
    recurrent = op.recurrent_gated_linear_attention(*arrays)
    np.testing.assert_allclose(recurrent, quadratic, atol=5e-6)


def test_strong_decays_neither_overflow_nor_lose_what_they_keep():
    """-80 a position: products of two of their inverses are beyond float32."""
    q, k, v, decay = sequence(37)
    decay = np.where(np.arange(37)[:, None] % 3 == 0, -80, decay).astype(np.float32)

    def total(*arrays):
        y, _ = op.gated_linear_attention(*arrays, chunk=16)
        return (y**2).sum(), y

    recurrent = op.recurrent_gated_linear_attention(q, k, v, decay)
    # Logarithms cumulate to -480 in a chunk, which float32 holds to 3e-5.
    gradients, chunked = jax.jit(jax.grad(total, (0, 1, 2, 3), has_aux=True))(q, k, v, decay)
    np.testing.assert_allclose(chunked, recurrent, rtol=1e-3, atol=1e-3)
    assert all(np.isfinite(g).all() for g in gradients)


@pytest.mark.slow
def test_without_decay_it_sums_as_linear_attention_does():
    q, k, v, decay = sequence(10)
    _, state = op.gated_linear_attention(q, k, v, 0 * decay, chunk=4)
    _, sums = causal_linear_attention(q, k, v, chunk=4)
    np.testing.assert_allclose(state, sums.values, atol=1e-5)


def test_nothing_leaks_and_decoding_is_the_whole():
    layer = make(chunk_size=4, decay_rank=3)
    check_no_leak(layer, 10)
    check_decoding(layer, 9)
    check_step_is_constant(layer)


@pytest.mark.fast
def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"chunk_size a power of two. Got 6"):
        make(chunk_size=6)
    with pytest.raises(ValueError, match=r"Got decay_rank=16, temperature=0"):
        make(temperature=0)
    with pytest.raises(ValueError, match=r"shapes \[\(2, 2, 3, 3\)\].*Got \[\(1, 2, 3, 3\)\]"):
        make().decode(jnp.ones((2, 1, 6)), make().init_state(1))
