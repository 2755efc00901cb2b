# SPDX-License-Identifier: Apache-2.0
"""LowRankLinear: the best approximation of its rank, and the way back."""

import numpy as np
import pytest
from flax import nnx

from efficient_layers import layers

pytestmark = pytest.mark.fast


def linear(in_features: int = 9, out_features: int = 7, **kwargs) -> nnx.Linear:
    made = nnx.Linear(in_features, out_features, rngs=nnx.Rngs(0), **kwargs)
    if made.bias is not None:
        made.bias.set_value(made.bias[...] + np.arange(out_features, dtype=np.float32))
    return made


@pytest.mark.parametrize("rank", [1, 3, 7])
def test_the_error_is_eckart_and_youngs(rank):
    dense = linear()
    kernel = np.asarray(dense.kernel[...], np.float64)
    merged = layers.LowRankLinear.from_linear(dense, rank=rank).merge()
    error = kernel - np.asarray(merged.kernel[...], np.float64)
    values = np.linalg.svd(kernel, compute_uv=False)
    np.testing.assert_allclose(
        np.linalg.norm(error), np.sqrt((values[rank:] ** 2).sum()), atol=1e-6
    )
    np.testing.assert_allclose(np.linalg.norm(error, 2), [*values, 0][rank], atol=1e-6)
    np.testing.assert_array_equal(merged.bias[...], dense.bias[...])


def test_energy_chooses_the_least_rank():
    dense = linear(4, 4)
    # Squared singular values 16, 4, 1, 0.25 of 21.25: shares 0.753, 0.941, 0.988, 1.
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))
    dense.kernel.set_value(np.asarray(turn * [4, 2, 1, 0.5] @ turn.T, np.float32))
    ranks = [
        layers.LowRankLinear.from_linear(dense, energy=energy).rank
        for energy in (0.5, 0.75, 0.76, 0.98, 0.99, 1.0)
    ]
    assert ranks == [1, 1, 2, 3, 4, 4]


def test_merge_gives_the_same_outputs():
    layer = layers.LowRankLinear.from_linear(linear(use_bias=False), rank=3)
    x = np.random.default_rng(1).normal(size=(2, 5, 9)).astype(np.float32)
    np.testing.assert_allclose(layer.merge()(x), layer(x), atol=1e-6)
    assert layer.bias is None


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"rank from 1 to 3 .*out_features.*Got 4"):
        layers.LowRankLinear(5, 3, rank=4, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"sizes of at least 1. Got in_features=0"):
        layers.LowRankLinear(0, 3, rank=1, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"rank or energy. Got rank=None, energy=None"):
        layers.LowRankLinear.from_linear(linear())
    with pytest.raises(ValueError, match=r"energy in \(0, 1\]. Got 1.5"):
        layers.LowRankLinear.from_linear(linear(), energy=1.5)
    with pytest.raises(TypeError, match=r"expects an nnx.Linear. Got Dropout"):
        layers.LowRankLinear.from_linear(nnx.Dropout(0.5), rank=1)
    with pytest.raises(ValueError, match=r"shape \(\*batch, 5\). Got \(2, 4\)"):
        layers.LowRankLinear(5, 3, rank=2, rngs=nnx.Rngs(0))(np.ones((2, 4), np.float32))
