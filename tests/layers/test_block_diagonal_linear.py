# SPDX-License-Identifier: Apache-2.0
"""BlockDiagonalLinear: blocks do not see each other; torch's grouped convolution; the way back."""

import numpy as np
import pytest
from flax import nnx

from efficient_layers import layers

X = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)


@pytest.mark.fast
def test_a_block_sees_its_own_inputs_alone():
    layer = layers.BlockDiagonalLinear(6, 9, blocks=3, rngs=nnx.Rngs(0))
    moved = X + np.asarray([0, 0, 1, 1, 0, 0], np.float32)
    changed = np.abs(np.asarray(layer(moved) - layer(X))).max(0) > 0
    assert changed.tolist() == [False] * 3 + [True] * 3 + [False] * 3


@pytest.mark.fast
def test_from_linear_keeps_the_diagonal_and_merge_gives_it_back():
    dense = nnx.Linear(4, 6, rngs=nnx.Rngs(0))
    kernel = np.array(dense.kernel[...])
    kernel[:2, 3:] = kernel[2:, :3] = 0
    merged = layers.BlockDiagonalLinear.from_linear(dense, blocks=2).merge()
    np.testing.assert_array_equal(merged.kernel[...], kernel)


@pytest.mark.fast
def test_bad_blocks_are_named():
    with pytest.raises(ValueError, match=r"divide in_features=6. Got 4"):
        layers.BlockDiagonalLinear(6, 8, blocks=4, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"divide out_features=8. Got 3"):
        layers.BlockDiagonalLinear(6, 8, blocks=3, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"Got 0"):
        layers.BlockDiagonalLinear(6, 8, blocks=0, rngs=nnx.Rngs(0))


@pytest.mark.oracle
def test_it_is_torchs_grouped_convolution_of_one_tap():
    torch = pytest.importorskip("torch", reason="torch is an oracle: see docs/dependencies.md")
    theirs = torch.nn.Conv1d(6, 9, 1, groups=3)
    layer = layers.BlockDiagonalLinear(6, 9, blocks=3, rngs=nnx.Rngs(0))
    weight = theirs.weight.detach().numpy().reshape(3, 3, 2)  # k q p
    layer.kernel.set_value(weight.transpose(0, 2, 1))
    layer.bias.set_value(theirs.bias.detach().numpy())
    expected = theirs(torch.from_numpy(X)[..., None])[..., 0].detach().numpy()
    np.testing.assert_allclose(layer(X), expected, atol=1e-6)
