# SPDX-License-Identifier: Apache-2.0
"""Attention layers: nothing leaks from the future or another segment, masks, packing, errors."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import layers
from tests.layers.case import randomised
from tests.layers.numpy_attention import attention

pytestmark = pytest.mark.fast
X = np.random.default_rng(0).normal(size=(2, 7, 8)).astype(np.float32)
SEGMENTS = np.array([[3, 3, 3, 1, 1, 4, 4], [0, 0, 0, 0, 0, 0, 9]])
POSITIONS = [None, layers.RoPE(), layers.ALiBi(), layers.RelativePosition(6, 5)]


def made(layer=layers.MultiHeadAttention, heads=2, **kwargs):
    module = randomised(layer(8, heads, **kwargs, rngs=nnx.Rngs(0)))
    module.eval()
    return module


def agrees(module, expected, *args, **kwargs):
    run = jax.jit(lambda *args, **kwargs: module(*args, **kwargs))
    np.testing.assert_allclose(run(*args, **kwargs), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("position", POSITIONS, ids=str)
@pytest.mark.parametrize("window", [None, pytest.param(3, marks=pytest.mark.slow)])
def test_nothing_leaks_from_the_future_or_another_segment(position, window):
    """The derivative of output i by input j is exactly zero where i must not see j."""
    layer, rest = layers.MultiHeadAttention, {}
    if window:
        layer, rest = layers.SlidingWindowAttention, {"window": window}
    module = made(layer, causal=True, position=position, **rest)

    def size(x):
        return module(x, segments=jnp.asarray(SEGMENTS[:1])).sum(-1)

    jacobian = np.asarray(jax.jit(jax.jacrev(size))(X[:1]))[0, :, 0]  # i j d
    i, j = np.arange(7)[:, None], np.arange(7)
    sees = (j <= i) & (SEGMENTS[0][:, None] == SEGMENTS[0]) & (i - j < (window or 9))
    np.testing.assert_array_equal(jacobian[~sees], 0)
    assert (np.abs(jacobian[sees]).max(-1) > 1e-6).all()


@pytest.mark.parametrize("position", POSITIONS, ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_packed_sequences_are_computed_as_if_alone(position, causal):
    module = made(causal=causal, position=position)
    x = np.concatenate([X[:1, :4], X[1:, :3]], 1)
    packed = jax.jit(module)(x, segments=np.array([[5] * 4 + [2] * 3]))
    np.testing.assert_allclose(packed[:, :4], attention(module, X[:1, :4]), atol=2e-5)
    np.testing.assert_allclose(packed[:, 4:], attention(module, X[1:, :3]), atol=2e-5)


def test_positions_restart_with_each_segment():
    """Seen with a limit: segments of four tokens fit a RoPE of four positions, seven do not."""
    module = made(position=layers.RoPE(max_length=4))
    assert np.isfinite(jax.jit(module)(X[:1], segments=np.array([[0] * 4 + [1] * 3]))).all()
    shifted = jax.jit(module)(X, positions=np.array([0, 1, 2, 3, 0, 1, 2]))
    assert np.isfinite(shifted).all()
    with pytest.raises(ValueError, match=r"positions below max_length=4. Got 6"):
        jax.eval_shape(module, X)


@pytest.mark.parametrize("position", POSITIONS, ids=str)
def test_masks_of_every_form(position):
    module = made(heads=2, num_kv_heads=1, head_dim=4, position=position)
    draw = np.random.default_rng(3)
    keys, pairs, heads = (draw.random(s) < 0.6 for s in ((2, 7), (2, 7, 7), (2, 2, 7, 7)))
    agrees(module, attention(module, X, seen=lambda b, h, i, j: keys[b, j]), X, mask=keys)
    if position is None:
        agrees(module, attention(module, X, seen=lambda b, h, i, j: pairs[b, i, j]), X, mask=pairs)
        agrees(module, attention(module, X, seen=lambda *at: heads[at]), X, mask=heads)
        one = pairs[:1]
        agrees(module, attention(module, X, seen=lambda b, h, i, j: one[0, i, j]), X, mask=one)


def test_a_query_that_sees_nothing_gets_the_bias():
    module = made()
    y = jax.jit(module)(X, mask=np.zeros((2, 7), bool))
    np.testing.assert_allclose(y, np.broadcast_to(module.out.bias[...], y.shape))


@pytest.mark.parametrize("position", [None, layers.RoPE(), layers.RelativePosition(4, 9)], ids=str)
def test_a_context_of_another_length(position):
    module, context = made(position=position), X[:, :4] * 2
    agrees(module, attention(module, X, context), X, context)
    seen = np.arange(7) // 4, np.arange(4) // 3
    pair = tuple(np.broadcast_to(s, (2, len(s))) for s in seen)
    expected = attention(module, X, context, lambda b, h, i, j: seen[0][i] == seen[1][j])
    if position is None:  # with RoPE positions restart
        agrees(module, expected, X, context, segments=pair)


def test_relative_position_within_attention():
    module = made(heads=4, position=layers.RelativePosition(buckets=6, max_distance=4))
    agrees(module, attention(module, X), X)
    agrees(module, attention(module, X), X)
    graphdef, state = nnx.split(module)

    def loss(state):
        return (nnx.merge(graphdef, state)(X) ** 2).sum()

    gradient = jax.jit(jax.grad(loss))(state)["relative_bias"]["table"][...]
    used = np.abs(gradient).max(-1) > 0  # bucket 3 is that of the distance 0 "after the query"
    assert used.tolist() == [True, True, True, False, True, True]


@pytest.mark.slow
def test_dropout_drops_weights_and_keeps_their_mean():
    module = made(dropout_rate=0.5)
    module.train()
    module.value.kernel.set_value(jnp.zeros((8, 8)))
    module.value.bias.set_value(jnp.ones(8))
    module.out.kernel.set_value(jnp.eye(8))
    module.out.bias.set_value(jnp.zeros(8))
    y = jax.jit(lambda keys: jax.vmap(lambda k: module(X, rngs=k))(keys))(
        jax.random.split(jax.random.key(0), 100)
    )
    assert 0.95 < float(y.mean()) < 1.05
    assert float(y.std()) > 0.1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_heads": 4}, r"num_heads that divide in_features=6, or a head_dim. Got num_heads=4"),
        ({"num_heads": 0}, r"sizes of at least 1. Got in_features=6, num_heads=0"),
        ({"num_kv_heads": 2}, r"num_kv_heads that divide num_heads=3. Got 2"),
        ({"head_dim": 0}, r"head_dim of at least 1. Got 0"),
        ({"dropout_rate": 1.0}, r"dropout_rate in \[0, 1\). Got 1.0"),
        ({"head_dim": 3, "position": layers.RoPE()}, r"even number of features to turn. Got 3"),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        layers.MultiHeadAttention(6, **{"num_heads": 3, **settings}, rngs=nnx.Rngs(0))


def test_bad_inputs_are_named():
    module = made()
    call = partial(jax.eval_shape, module)
    with pytest.raises(ValueError, match=r"input of shape \(\*batch, tokens, 8\). Got \(2, 7, 5\)"):
        call(X[..., :5])
    with pytest.raises(ValueError, match=r"context with the batch axes \(2,\).* Got \(1, 7, 8\)"):
        call(X, X[:1])
    with pytest.raises(TypeError, match=r"floating-point context. Got int32"):
        call(X, jnp.ones((2, 3, 8), jnp.int32))
    with pytest.raises(TypeError, match=r"boolean mask, True = seen. Got int32"):
        call(X, mask=jnp.ones((2, 7), jnp.int32))
    with pytest.raises(ValueError, match=r"\(2, 7\) \(keys\), \(2, 7, 7\) or .* Got \(2, 6\)"):
        call(X, mask=np.ones((2, 6), bool))
    with pytest.raises(ValueError, match=r"integer segments of shape \(2, 7\). Got int.. of .*7,"):
        call(X, segments=np.arange(7))
    with pytest.raises(ValueError, match=r"segments of x and of the context, a pair"):
        call(X, X[:, :3], segments=SEGMENTS)
    with pytest.raises(ValueError, match=r"`positions` only with position=RoPE"):
        call(X, positions=np.arange(7))
    with pytest.raises(TypeError, match=r"such as RoPE\(\).* Got 'rope'"):
        made(position="rope")
    with pytest.raises(ValueError, match=r"window from 1 on. Got 0"):
        made(layers.SlidingWindowAttention, window=0)
