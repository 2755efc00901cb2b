# SPDX-License-Identifier: Apache-2.0
"""KroneckerLinear: the nearest Kronecker product, exact where one is given."""

import numpy as np
import pytest
from flax import nnx

from efficient_layers import layers

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("terms", [1, 2])
def test_a_sum_of_kronecker_products_is_recovered(terms):
    settings = {"left_features": (3, 2), "terms": terms}
    layer = layers.KroneckerLinear(6, 8, **settings, rngs=nnx.Rngs(0))
    again = layers.KroneckerLinear.from_linear(layer.merge(), **settings)
    x = np.random.default_rng(0).normal(size=(2, 4, 6)).astype(np.float32)
    np.testing.assert_allclose(again(x), layer(x), atol=1e-5)
    np.testing.assert_allclose(layer.merge()(x), layer(x), atol=1e-5)


def test_the_projection_is_van_loan_and_pitsianis():
    """The error is the tail of the rearranged matrix's singular values, built entry by entry."""
    dense = nnx.Linear(6, 4, rngs=nnx.Rngs(0))
    kernel = np.asarray(dense.kernel[...], np.float64)
    # Row (i, o) of the rearranged matrix is block (i, o) of the kernel, of shape 2 x 2.
    rows = [
        kernel[2 * i : 2 * i + 2, 2 * o : 2 * o + 2].ravel() for i in range(3) for o in range(2)
    ]
    values = np.linalg.svd(np.asarray(rows), compute_uv=False)
    for terms in (1, 2, 4):
        layer = layers.KroneckerLinear.from_linear(dense, left_features=(3, 2), terms=terms)
        error = kernel - np.asarray(layer.merge().kernel[...])
        expected = np.sqrt((values[terms:] ** 2).sum())
        np.testing.assert_allclose(np.linalg.norm(error), expected, atol=1e-6)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"divide \(6, 8\). Got \(4, 2\)"):
        layers.KroneckerLinear(6, 8, left_features=(4, 2), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"terms from 1 to 6.* Got 7"):
        layers.KroneckerLinear(6, 8, left_features=(3, 2), terms=7, rngs=nnx.Rngs(0))
