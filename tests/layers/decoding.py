# SPDX-License-Identifier: Apache-2.0
"""What every layer with a state promises: no look ahead, and decoding equal to the whole."""

from typing import Any

import jax
import numpy as np
from flax import nnx


def check_no_leak(layer: Any, n: int) -> None:
    """The gradient of output i against input j is exactly zero for j > i, and not for j = i."""
    x = np.random.default_rng(0).normal(size=(n, layer.in_features)).astype(np.float32)
    graphdef, state = nnx.split(layer)
    weights = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)

    def outputs(x: jax.Array) -> jax.Array:
        return (nnx.merge(graphdef, state)(x[None])[0] * weights).sum(-1)

    gradient = np.abs(np.asarray(jax.jit(jax.jacrev(outputs))(x))).sum(-1)  # i, j
    assert (np.triu(gradient, 1) == 0).all()
    assert (np.diagonal(gradient) > 0).all()
    assert (gradient[-1] > 0).all()


def check_decoding(layer: Any, n: int, *, tolerance: float = 1e-5, batch: int = 2) -> None:
    """Token by token, and prefix then rest, give what the whole sequence gives."""
    x = np.random.default_rng(0).normal(size=(batch, n, layer.in_features)).astype(np.float32)
    decode = jax.jit(lambda x, state: layer.decode(x, state))
    whole = np.asarray(jax.jit(lambda x: layer(x))(x))
    state, tokens = layer.init_state(batch), []
    for i in range(n):
        y, state = decode(x[:, i : i + 1], state)
        tokens.append(y)
    assert decode._cache_size() == 1  # one program for every step, however long what came before
    np.testing.assert_allclose(np.concatenate(tokens, 1), whole, rtol=0, atol=tolerance)
    cut = n // 2
    first, between = decode(x[:, :cut], layer.init_state(batch))
    second, last = decode(x[:, cut:], between)
    np.testing.assert_allclose(np.concatenate([first, second], 1), whole, rtol=0, atol=tolerance)
    for a, b in zip(jax.tree.leaves(last), jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=10 * tolerance)


def check_step_is_constant(layer: Any) -> None:
    """The state after a long prompt has the shapes it had before: one program makes every step."""
    empty = jax.eval_shape(lambda: layer.init_state(1))
    for n in (1, 389):
        x = jax.ShapeDtypeStruct((1, n, layer.in_features), np.float32)
        y, later = jax.eval_shape(layer.decode, x, empty)
        assert y.shape == x.shape
        assert later == empty
