# SPDX-License-Identifier: Apache-2.0
"""MonarchLinear: projection onto Monarch matrices, exact where one is given."""

import numpy as np
import pytest
from flax import nnx

from efficient_layers import layers

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("sizes", "settings"), [((9, 9), {"blocks": 3}), ((8, 12), {"blocks": 2, "rank": 3})]
)
def test_a_monarch_matrix_is_recovered(sizes, settings):
    layer = layers.MonarchLinear(*sizes, **settings, rngs=nnx.Rngs(0))
    again = layers.MonarchLinear.from_linear(layer.merge(), **settings)
    x = np.random.default_rng(0).normal(size=(4, sizes[0])).astype(np.float32)
    np.testing.assert_allclose(again(x), layer(x), atol=1e-5)
    np.testing.assert_allclose(layer.merge()(x), layer(x), atol=1e-5)


def test_the_projection_is_the_best_rank_one_of_every_part():
    dense = nnx.Linear(6, 9, rngs=nnx.Rngs(0))
    kernel = np.asarray(dense.kernel[...], np.float64)
    merged = layers.MonarchLinear.from_linear(dense, blocks=3).merge()
    for i in range(3):
        for j in range(3):  # block i of the inputs, outputs j, j + 3, j + 6
            part = kernel[2 * i : 2 * i + 2, j::3]
            u, s, v = np.linalg.svd(part)
            got = np.asarray(merged.kernel[...])[2 * i : 2 * i + 2, j::3]
            np.testing.assert_allclose(got, s[0] * np.outer(u[:, 0], v[0]), atol=1e-6)


def test_every_output_sees_every_input_and_the_kernel_has_full_rank():
    kernel = layers.MonarchLinear(16, 16, blocks=4, rngs=nnx.Rngs(0)).merge().kernel[...]
    assert np.abs(np.asarray(kernel)).min() > 0
    assert np.linalg.matrix_rank(np.asarray(kernel, np.float64)) == 16


def test_the_papers_count_of_a_square_matrix():
    layer = layers.MonarchLinear(64, 64, blocks=8, use_bias=False, rngs=nnx.Rngs(0))
    assert layer.first[...].size + layer.second[...].size == 2 * 64**1.5  # 2 n sqrt(n), sec. 3.1


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"divide out_features=9. Got 2"):
        layers.MonarchLinear(8, 9, blocks=2, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"rank from 1 to 2, .* part of 2 x 3. Got 3"):
        layers.MonarchLinear(8, 12, blocks=4, rank=3, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"divide in_features=8. Got 3"):
        layers.MonarchLinear.from_linear(nnx.Linear(8, 9, rngs=nnx.Rngs(0)), blocks=3)
