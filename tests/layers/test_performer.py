# SPDX-License-Identifier: Apache-2.0
"""Performer: an unbiased estimate of softmax, decoding, causality, redrawn features."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import layers
from efficient_layers.ops.performer import orthogonal_directions, softmax_features
from tests.layers.decoding import check_decoding, check_no_leak, check_step_is_constant


def make(**kwargs):
    return layers.Performer(6, 2, rngs=nnx.Rngs(0), **kwargs)


@pytest.mark.slow
@pytest.mark.fast
def test_directions_are_orthogonal_within_blocks_and_normal_in_length():
    rows = np.asarray(orthogonal_directions(jax.random.key(0), 10, 4), np.float64)
    for block in (rows[:4], rows[4:8], rows[8:]):
        gram = block @ block.T
        np.testing.assert_allclose(gram - np.diag(np.diag(gram)), 0, atol=1e-5)
    many = np.asarray(orthogonal_directions(jax.random.key(1), 4000, 8), np.float64)
    np.testing.assert_allclose(many.T @ many / 4000, np.eye(8), atol=0.1)


@pytest.mark.slow
def test_features_estimate_the_softmax_kernel():
    draw = np.random.default_rng(0)
    q, k = 0.7 * draw.normal(size=(2, 6, 8)).astype(np.float32)
    rows = orthogonal_directions(jax.random.key(0), 40_000, 8)
    kernel = softmax_features(q, rows, query=False) @ softmax_features(k, rows, query=False).T
    exact = np.exp(q @ k.T / np.sqrt(8))
    np.testing.assert_allclose(kernel / 40_000, exact, rtol=0.15)


def test_nothing_leaks_and_decoding_is_the_whole():
    layer = make(num_features=7, causal=True, chunk_size=4)
    check_no_leak(layer, 10)
    check_decoding(layer, 9)
    check_step_is_constant(layer)


def test_features_are_not_trained_and_can_be_drawn_anew():
    layer = make(num_features=7)
    trained = {path for path, _ in nnx.to_flat_state(nnx.state(layer, nnx.Param))}
    assert ("projection",) not in trained
    before = np.asarray(layer.projection[...])
    layer.redraw(nnx.Rngs(1))
    after = np.asarray(layer.projection[...])
    assert after.shape == before.shape == (7, 3)
    assert np.abs(after - before).min() > 0


@pytest.mark.fast
def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"num_features of at least 1. Got 0"):
        make(num_features=0)
    with pytest.raises(ValueError, match=r"decodes where it is causal"):
        make().decode(jnp.ones((1, 1, 6)), None)
