# SPDX-License-Identifier: Apache-2.0
"""Linformer and NystromAttention: exact where they should be, transformers as oracle, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import layers
from efficient_layers.ops import landmarks as op
from tests.layers.torch_weights import randomise, transformers_module


def heads(n, d=4):
    return np.random.default_rng(0).normal(size=(3, 2, n, d)).astype(np.float32)


def softmax_attention(q, k, v):
    logits = np.einsum("bnd,bmd->bnm", q, k) / np.sqrt(q.shape[-1])
    weights = np.exp(logits)
    return weights / weights.sum(-1, keepdims=True) @ v


@pytest.mark.fast
def test_a_landmark_for_every_position_is_softmax_attention():
    q, k, v = heads(6)
    y = op.nystrom_attention(q, k, v, landmarks=6, iterations=20)
    np.testing.assert_allclose(y, softmax_attention(q, k, v), atol=1e-4)
    more = op.nystrom_attention(q, k, v, landmarks=9, iterations=20)
    np.testing.assert_allclose(more, y, atol=1e-5)


def test_linformer_with_unit_rows_is_softmax_attention():
    layer = layers.Linformer(4, 2, length=5, rank=5, rngs=nnx.Rngs(0))
    layer.key_mix.set_value(jnp.eye(5))
    layer.value_mix.set_value(jnp.eye(5))
    theirs = nnx.MultiHeadAttention(2, 4, decode=False, rngs=nnx.Rngs(0))
    for name in ("query", "key", "value", "out"):
        ours, other = getattr(layer, name), getattr(theirs, name)
        other.kernel.set_value(ours.kernel[...].reshape(other.kernel.shape))
    x = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
    np.testing.assert_allclose(layer(x), theirs(x), atol=1e-5)


def test_the_inverse_is_numpys():
    draw = np.random.default_rng(0)
    a = draw.uniform(size=(2, 5, 5)) + 3 * np.eye(5)
    a = (a / a.sum(-1, keepdims=True)).astype(np.float32)
    got = op.pseudo_inverse(jnp.asarray(a), 12)
    np.testing.assert_allclose(got, np.linalg.pinv(a.astype(np.float64)), atol=1e-3)


@pytest.mark.slow
def test_no_example_changes_anothers_result():
    layer = layers.NystromAttention(4, 2, num_landmarks=2, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(size=(2, 6, 4)).astype(np.float32)
    np.testing.assert_allclose(layer(x)[:1], layer(x[:1]), atol=1e-6)


@pytest.mark.oracle
def test_transformers_nystromformer():
    torch = pytest.importorskip("torch", reason="torch is an oracle: see docs/dependencies.md")
    theirs = transformers_module("nystromformer")
    config = theirs.NystromformerConfig(
        hidden_size=6,
        num_attention_heads=2,
        num_landmarks=4,
        segment_means_seq_len=8,
        conv_kernel_size=3,
        attention_probs_dropout_prob=0.0,
    )
    attention = randomise(theirs.NystromformerSelfAttention(config))
    attention.init_option = "exact"
    layer = layers.NystromAttention(6, 2, num_landmarks=4, kernel_size=3, rngs=nnx.Rngs(0))
    for name in ("query", "key", "value"):
        linear = getattr(attention, name)
        getattr(layer, name).kernel.set_value(jnp.asarray(linear.weight.detach().numpy().T))
        getattr(layer, name).bias.set_value(jnp.asarray(linear.bias.detach().numpy()))
    layer.conv.set_value(jnp.asarray(attention.conv.weight.detach().numpy()[:, 0, :, 0].T))
    layer.out.kernel.set_value(jnp.eye(6))
    x = np.random.default_rng(0).normal(size=(1, 8, 6)).astype(np.float32)
    expected = attention(torch.from_numpy(x))[0].detach().numpy()
    np.testing.assert_allclose(jax.jit(layer)(x), expected, atol=2e-5)


@pytest.mark.fast
def test_bad_arguments_are_named():
    rngs = nnx.Rngs(0)
    with pytest.raises(ValueError, match=r"rank from 1 to length=4. Got 5"):
        layers.Linformer(4, 2, length=4, rank=5, rngs=rngs)
    with pytest.raises(ValueError, match=r"made for 4 positions at most. Got 5"):
        layers.Linformer(4, 2, length=4, rank=2, rngs=rngs)(jnp.ones((1, 5, 4)))
    with pytest.raises(ValueError, match=r"at least 1. Got num_landmarks=0, iterations=6"):
        layers.NystromAttention(4, 2, num_landmarks=0, rngs=rngs)
    with pytest.raises(ValueError, match=r"odd kernel_size. Got 4"):
        layers.NystromAttention(4, 2, kernel_size=4, rngs=rngs)
