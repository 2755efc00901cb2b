# SPDX-License-Identifier: Apache-2.0
"""Adaptive pooling against torch, and what stays as it is."""

import jax.numpy as jnp
import numpy as np
import pytest

from efficient_layers.ops.adaptive_pool import adaptive_avg_pool


@pytest.mark.fast
def test_an_image_of_the_size_is_untouched():
    x = jnp.ones((2, 7, 7, 3))
    assert adaptive_avg_pool(x, 7) is x


@pytest.mark.oracle
@pytest.mark.parametrize("shape", [(1, 1, 2), (8, 14, 2), (9, 5, 2)])
def test_torch(shape):
    torch = pytest.importorskip("torch", reason="torch is the oracle; CI installs it")
    x = np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)
    theirs = torch.from_numpy(np.moveaxis(x, -1, 1).copy())
    expected = torch.nn.functional.adaptive_avg_pool2d(theirs, 7).numpy()
    np.testing.assert_allclose(
        adaptive_avg_pool(jnp.asarray(x), 7), np.moveaxis(expected, 1, -1), atol=1e-6
    )
