# SPDX-License-Identifier: Apache-2.0
"""Decoding with a cache = the full forward pass, token by token; what happens when it is full."""

import doctest
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import layers
from efficient_layers.layers import kv_cache
from efficient_layers.ops import cached_attention
from tests.layers.case import randomised

pytestmark = pytest.mark.fast
X = np.random.default_rng(0).normal(size=(2, 11, 8)).astype(np.float32)
BUDGETS = {"float32": 1e-5, "bfloat16": 2e-2, "int8": 4e-2}  # of the largest output


def made(layer=layers.GroupedQueryAttention, **kwargs):
    kwargs = {"causal": True, "position": layers.RoPE(), **kwargs}
    if layer is layers.GroupedQueryAttention:
        kwargs = {"num_kv_heads": 2, **kwargs}
    module = randomised(layer(8, 4, **kwargs, rngs=nnx.Rngs(0)))
    module.eval()
    return module


def stepped(module, cache, pieces):
    """Outputs for X, decoded in pieces of these sizes, and the caches after each."""
    step = jax.jit(module.decode, donate_argnums=1)
    ys, start = [], 0
    for n in pieces:
        y, cache = step(X[:, start : start + n], cache)
        ys.append(y)
        start += n
    return np.concatenate(ys, 1), cache


def close(got, expected, budget):
    np.testing.assert_allclose(got, expected, rtol=0, atol=budget * np.abs(expected).max())


@pytest.mark.parametrize("dtype", BUDGETS)
@pytest.mark.parametrize("pieces", [[1] * 11, [5, 1, 1, 4]], ids=str)
def test_decoding_is_the_full_forward_pass(dtype, pieces):
    module = made(qk_norm=True)
    cache = module.init_cache(2, 12, dtype=dtype)
    y, cache = stepped(module, cache, pieces)
    close(y, jax.jit(module)(X), BUDGETS[dtype])
    assert int(cache.length) == 11
    assert cache.key.dtype == dtype
    assert cache.key.shape == (2, 2, 12, 2)


@pytest.mark.parametrize("position", [None, layers.ALiBi(), layers.RelativePosition(4, 5)], ids=str)
@pytest.mark.parametrize("long", [False, True])
def test_positions_while_decoding(position, long, monkeypatch):
    """`long`: prompts go through the operation that never stores the scores."""
    if long:
        monkeypatch.setattr("efficient_layers.layers.decoding._FEW", 2)
    module = made(layers.MultiHeadAttention, position=position)
    y, _ = stepped(module, module.init_cache(2, 11), [5, 1, 5])
    close(y, jax.jit(module)(X), 1e-5)


@pytest.mark.parametrize(("piece", "pieces"), [(1, [1] * 11), (3, [3, 2, 1, 3, 2])])
@pytest.mark.parametrize("position", [layers.RoPE(), layers.ALiBi()], ids=str)
def test_a_rolling_cache_holds_a_window(piece, pieces, position):
    module = made(layers.SlidingWindowAttention, window=4, position=position)
    cache = module.init_cache(2, 1000, piece=piece)
    assert cache.rolling
    assert cache.slots == 4 + piece - 1
    y, cache = stepped(module, cache, pieces)
    close(y, jax.jit(module)(X), 1e-5)
    assert not cache.overflowed
    if piece == 1:
        assert sorted(cache.positions.tolist()) == [7, 8, 9, 10]


def test_a_rolling_cache_of_int8():
    module = made(layers.SlidingWindowAttention, window=4)
    y, _ = stepped(module, module.init_cache(2, 1000, piece=2, dtype=jnp.int8), [2] * 5 + [1])
    close(y, jax.jit(module)(X), BUDGETS["int8"])


def test_a_window_longer_than_the_cache_needs_no_rolling():
    module = made(layers.SlidingWindowAttention, window=40)
    cache = module.init_cache(2, 11)
    assert (cache.slots, cache.rolling) == (11, False)
    y, _ = stepped(module, cache, [3, 8])
    close(y, jax.jit(module)(X), 1e-5)


def test_leading_axes_and_weights_in_bfloat16():
    module = made(layers.MultiQueryAttention, dtype=jnp.bfloat16)
    cache = module.init_cache((2, 1), 4)
    assert cache.key.dtype == jnp.bfloat16
    x = jnp.asarray(X[:, None, :3], jnp.bfloat16)
    y, cache = jax.jit(module.decode)(x, cache)
    assert y.dtype == jnp.bfloat16
    close(np.asarray(y, np.float32), np.asarray(jax.jit(module)(x), np.float32), 3e-2)


def test_int8_rows_are_off_by_half_a_step_at_most():
    x = np.random.default_rng(1).normal(size=(3, 5, 6)).astype(np.float32)
    x[0, 0] = 0
    rows, scale = cached_attention.quantize_rows(x)
    expected = np.zeros((3, 5, 6), np.int8)
    for at in np.ndindex(3, 5):
        step = np.float32(max(abs(x[at]).max() / np.float32(127), 0)) or np.float32(1)
        expected[at] = np.round(x[at] / step)
    np.testing.assert_array_equal(rows, expected)
    assert (np.abs(rows * np.asarray(scale)[..., None] - x) <= scale[..., None] / 2 + 1e-7).all()
    np.testing.assert_array_equal(np.asarray(rows)[0, 0], 0)


def test_bytes():
    """Per token and head 2 d numbers; int8 has two float32 scales besides."""
    sizes = {}
    for dtype, number in (("float32", 4), ("bfloat16", 2), ("int8", 1)):
        cache = layers.KVCache.empty((3,), heads=2, slots=16, features=64, dtype=dtype)
        scales = 2 * 4 if dtype == "int8" else 0
        assert cache.nbytes == 3 * 2 * 16 * (2 * 64 * number + scales) + 4
        sizes[dtype] = cache.nbytes
    assert sizes["float32"] / sizes["int8"] > 3.7


def test_one_program_for_every_length_and_the_cache_in_place():
    module, count = made(), []

    @partial(jax.jit, donate_argnums=1)
    def step(x, cache):
        count.append(1)
        return module.decode(x, cache)

    cache = module.init_cache(2, 12, dtype=jnp.int8)
    for t in range(3):
        given = cache
        _, cache = step(X[:, t : t + 1], cache)
        assert given.key.is_deleted()
        assert given.value_scale.is_deleted()
    assert len(count) == 1


def test_a_full_cache_is_an_error_where_it_is_known():
    module = made()
    cache = jax.jit(module.decode)(X[:, :4], module.init_cache(2, 4))[1]
    with pytest.raises(ValueError, match=r"at most 4 tokens. Got 1 more after 4: .* max_length"):
        module.decode(X[:, 4:5], cache)
    with pytest.raises(ValueError, match=r"at most 4 tokens. Got 5 more after 0"):
        jax.eval_shape(module.decode, X[:, :5], module.init_cache(2, 4))


def test_inside_jit_a_full_cache_gives_nan_from_then_on():
    module = made()
    step = jax.jit(module.decode)
    y, cache = step(X[:, :4], module.init_cache(2, 4))
    assert np.isfinite(y).all()
    assert not cache.overflowed
    for _ in range(2):
        y, cache = step(X[:, 4:5], cache)
        assert np.isnan(y).all()
        assert cache.overflowed


def test_positions_beyond_ropes_limit():
    module = made(position=layers.RoPE(max_length=6))
    with pytest.raises(ValueError, match=r"max_length up to 6, that of RoPE.* Got 7"):
        module.init_cache(2, 7)
    sliding = made(layers.SlidingWindowAttention, window=2, position=layers.RoPE(max_length=6))
    step = jax.jit(sliding.decode)
    cache = sliding.init_cache(2, 6)
    for t in range(7):
        y, cache = step(X[:, t : t + 1], cache)
        assert np.isnan(y).all() == (t == 6)
    with pytest.raises(ValueError, match=r"positions below max_length=6. Got 7"):
        sliding.decode(X[:, 7:8], cache)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"causal=True to decode token by token"):
        made(causal=False).init_cache(2, 4)
    with pytest.raises(ValueError, match=r"piece of at least 1. Got 0 and 1"):
        made().init_cache(2, 0)
    with pytest.raises(TypeError, match=r"int8 or a floating dtype. Got int32"):
        made().init_cache(2, 4, dtype=jnp.int32)
    with pytest.raises(ValueError, match=r"\(3, 'n', 2, 2\). Got \(2, 1, 2, 2\)"):
        made().decode(X[:, :1], made().init_cache(3, 4))
    sliding = made(layers.SlidingWindowAttention, window=4)
    with pytest.raises(ValueError, match=r"at most 1 tokens at once .* Got 3: .*piece=3"):
        sliding.decode(X[:, :3], sliding.init_cache(2, 100))


@pytest.mark.parametrize("module", [cached_attention, kv_cache], ids=str)
def test_examples_in_docstrings(module):
    runner = doctest.DocTestRunner()
    for example in doctest.DocTestFinder().find(module, "module", globs=dict(vars(module))):
        assert runner.run(example).failed == 0
