# SPDX-License-Identifier: Apache-2.0
"""BlockSparseAttention: its pattern, linear cost for real, masks, no leak, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import layers, measure
from tests.layers.case import randomised
from tests.layers.cases.block_sparse_attention import expected

pytestmark = pytest.mark.fast
X = np.random.default_rng(0).normal(size=(2, 12, 8)).astype(np.float32)
PATTERN = layers.BlockPattern(block=2, first=1, random=1)


def made(pattern=PATTERN, **kwargs):
    module = randomised(
        layers.BlockSparseAttention(8, 2, pattern=pattern, **kwargs, rngs=nnx.Rngs(0))
    )
    module.eval()
    return module


@pytest.mark.parametrize("causal", [False, True])
def test_the_table_of_blocks(causal):
    pattern = layers.BlockPattern(block=64, first=2, window=3, random=3, seed=5)
    table, valid = pattern.table(32, causal=causal)
    for i in range(2, 32):
        seen = table[i][valid[i]].tolist()
        assert len(set(seen)) == len(seen)
        assert {0, 1, i, i - 1} <= set(seen)
        assert max(seen) <= (i if causal else 31)
        if 10 < i < 30:
            assert len(seen) == pattern.width(causal=causal)
            assert causal or i + 1 in seen
    assert not np.array_equal(table, layers.BlockPattern(seed=6).table(32, causal=causal)[0])


@pytest.mark.parametrize("causal", [False, True])
def test_gradients_are_zero_where_nothing_is_seen(causal):
    module = made(causal=causal)
    jacobian = np.asarray(jax.jit(jax.jacrev(lambda x: module(x).sum(-1)))(X[:1]))[0, :, 0]
    table, valid = PATTERN.table(6, causal=causal)
    i, j = np.arange(12)[:, None], np.arange(12)
    sees = np.array([[b == 0 or c in table[b][valid[b]] for c in range(6)] for b in range(6)])
    sees = sees[i // 2, j // 2] & ((j <= i) | (not causal))
    np.testing.assert_array_equal(jacobian[~sees], 0)
    assert (np.abs(jacobian[sees]).max(-1) > 1e-7).all()
    assert not sees.all()


@pytest.mark.parametrize("first", [0, 1])
def test_a_mask_of_keys(first):
    module = made(layers.BlockPattern(block=2, first=first, random=1), position=layers.ALiBi())
    mask = np.random.default_rng(1).random((2, 12)) < 0.6
    mask[1] = False
    y = jax.jit(module)(X, mask=mask)
    np.testing.assert_allclose(y, expected(module, X, lambda b, h, i, j: mask[b, j]), atol=2e-5)


def test_with_a_wide_window_it_is_full_attention():
    module = made(layers.BlockPattern(block=4, first=1, window=5, random=0))
    full = layers.MultiHeadAttention(8, 2, rngs=nnx.Rngs(0))
    nnx.update(full, nnx.state(module))
    np.testing.assert_allclose(jax.jit(module)(X), jax.jit(full)(X), atol=2e-6)


def test_nothing_grows_with_the_square_of_n():
    """Twice the tokens: twice the MACs and twice the memory, gradients included."""
    pattern = layers.BlockPattern(block=8, first=1, window=3, random=1)
    module = layers.BlockSparseAttention(8, 1, pattern=pattern, rngs=nnx.Rngs(0))
    module.eval()
    graphdef, state = nnx.split(module)

    def loss(state, x):
        return nnx.merge(graphdef, state)(x).sum()

    gradient = jax.jit(jax.grad(loss), compiler_options={"xla_backend_optimization_level": 0})
    memory, macs = [], []
    for n in (512, 1024):
        x = jax.ShapeDtypeStruct((1, n, 8), jnp.float32)
        compiled = gradient.lower(state, x).compile()
        memory.append(compiled.memory_analysis().temp_size_in_bytes)
        macs.append(measure.cost(module, x).macs)
    assert memory[1] / memory[0] < 2.2
    assert macs[1] / macs[0] < 2.1


def test_bad_input_is_named():
    module = made()
    with pytest.raises(ValueError, match=r"multiple of block=2 tokens. Got 11: pad"):
        module(X[:, :11])
    with pytest.raises(ValueError, match=r"neither segments nor a context"):
        module(X, segments=np.zeros((2, 12), np.int32))
    with pytest.raises(ValueError, match=r"neither segments nor a context of another length"):
        module(X, X[:, :4])
    with pytest.raises(ValueError, match=r"mask of keys, .* Got .* \(2, 1, 12, 12\)"):
        module(X, mask=np.ones((2, 12, 12), bool))
    with pytest.raises(ValueError, match=r"odd window. Got block=64, window=2"):
        layers.BlockPattern(window=2)
    with pytest.raises(ValueError, match=r"from 0 on. Got first=-1"):
        layers.BlockPattern(first=-1)
    with pytest.raises(ValueError, match=r"RoPE\(\), ALiBi\(\) or None. Got RelativePosition"):
        made(position=layers.RelativePosition())
    with pytest.raises(ValueError, match=r"no decoding with a cache"):
        made(causal=True).init_cache(1, 8)
