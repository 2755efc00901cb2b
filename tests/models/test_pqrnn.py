# SPDX-License-Identifier: Apache-2.0
"""pQRNN: the recurrence as its paper writes it, padding that is not seen, its size."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import efficient_layers as el
from efficient_layers.models.pqrnn import QRNN
from tests.models.cases.pqrnn import SMALL

TOKENS = jnp.asarray(np.random.default_rng(0).integers(-(2**31), 2**31, (2, 9)), jnp.int32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.fast
def test_qrnn_equals_its_equations():
    layer = QRNN(3, 4, 2, 0.0, rngs=nnx.Rngs(0))
    x = np.random.default_rng(1).standard_normal((2, 6, 3)).astype(np.float32)
    kernel, bias = np.asarray(layer.gates.kernel[...]), np.asarray(layer.gates.bias[...])
    c = np.zeros((2, 4))
    y = np.asarray(layer(jnp.asarray(x)))
    for t in range(6):
        before = x[:, t - 1] if t else np.zeros((2, 3))
        gates = before @ kernel[0] + x[:, t] @ kernel[1] + bias
        z, f, o = np.tanh(gates[:, :4]), sigmoid(gates[:, 4:8]), sigmoid(gates[:, 8:])
        c = f * c + (1 - f) * z
        np.testing.assert_allclose(y[:, t], o * c, atol=1e-5)


@pytest.mark.slow
def test_zoneout_keeps_states():
    layer = QRNN(3, 64, 2, 0.5, rngs=nnx.Rngs(0))
    x = jnp.ones((1, 1, 3))
    with pytest.raises(ValueError, match=r"zoneout_rate=0\.5 in train mode needs a key"):
        layer(x)
    y = layer(x, rngs=nnx.Rngs(dropout=0))
    assert 0.2 < float((y == 0).mean()) < 0.8  # a state that was kept is the first, 0
    layer.eval()
    assert float((layer(x) == 0).mean()) == 0


@pytest.mark.slow
def test_padding_changes_no_logit():
    model = el.models.create("pqrnn", rngs=nnx.Rngs(0), **SMALL)
    model.eval()
    mask = jnp.arange(9) < jnp.asarray([[5], [9]])
    padded = model(TOKENS, mask=mask)
    np.testing.assert_allclose(padded[:1], model(TOKENS[:1, :5]), atol=1e-5)
    np.testing.assert_allclose(padded, model(TOKENS.at[0, 5:].set(0), mask=mask), atol=1e-5)


@pytest.mark.fast
def test_size_and_bad_input():
    model = nnx.eval_shape(lambda: el.models.create("pqrnn", rngs=nnx.Rngs(0)))
    leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
    gates = 2 * (2 * 256 * 3 * 128 + 3 * 128)
    expected = 1024 * 256 + 2 * 256 + 4 * gates + 256 + 2 * 256 + 2
    assert sum(math.prod(leaf.shape) for leaf in leaves) == expected == 1839362
    with pytest.raises(ValueError, match=r"tokens of shape \(batch, positions\)"):
        model(TOKENS[0])
    with pytest.raises(ValueError, match="zoneout_rate < 1"):
        el.models.create("pqrnn", zoneout_rate=1.0, rngs=nnx.Rngs(0))
