# SPDX-License-Identifier: Apache-2.0
"""CReLU: torch's numbers, the identity it keeps, bad input."""

import jax.numpy as jnp
import numpy as np
import pytest

from efficient_layers.layers import CReLU

X = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)


@pytest.mark.fast
def test_nothing_is_lost():
    """x and |x| are the difference and the sum of the halves, exactly: one of them is zero."""
    y = CReLU(4)(jnp.asarray(X))
    np.testing.assert_array_equal(y[..., :4] - y[..., 4:], X)
    np.testing.assert_array_equal(y[..., :4] + y[..., 4:], np.abs(X))


@pytest.mark.fast
def test_affine_starts_as_the_plain_form():
    np.testing.assert_array_equal(CReLU(4, affine=True)(jnp.asarray(X)), CReLU(4)(jnp.asarray(X)))


@pytest.mark.fast
def test_bad_sizes_and_inputs_are_errors():
    with pytest.raises(ValueError, match=r"at least 1. Got 0"):
        CReLU(0)
    with pytest.raises(ValueError, match=r"\(\*batch, 4\). Got \(5, 3\)"):
        CReLU(4)(jnp.ones((5, 3)))
    with pytest.raises(TypeError, match=r"floating-point input. Got int32"):
        CReLU(4)(jnp.ones((5, 4), jnp.int32))


@pytest.mark.oracle
def test_numbers_are_torchs():
    torch = pytest.importorskip("torch", reason="torch is an oracle: see docs/dependencies.md")
    x = torch.from_numpy(X)
    expected = torch.relu(torch.cat([x, -x], dim=-1)).numpy()
    np.testing.assert_array_equal(CReLU(4)(jnp.asarray(X)), expected)
