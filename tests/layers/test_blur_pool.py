# SPDX-License-Identifier: Apache-2.0
"""BlurPool: bad input, timm's numbers, and what it is for: little change under a shift."""

import jax.numpy as jnp
import numpy as np
import pytest

from efficient_layers.layers import BlurPool
from efficient_layers.ops.blur_pool import binomial
from tests.layers import torch_weights


@pytest.mark.fast
def test_bad_settings_and_inputs_are_errors():
    with pytest.raises(ValueError, match=r"at least 1. Got 0 and 2"):
        BlurPool(0)
    with pytest.raises(ValueError, match="Got 'wrap'"):
        BlurPool(pad_mode="wrap")
    with pytest.raises(ValueError, match=r"\(\*batch, h, w, c\). Got \(4, 3\)"):
        BlurPool()(jnp.ones((4, 3)))
    with pytest.raises(TypeError, match=r"floating-point input. Got int32"):
        BlurPool()(jnp.ones((1, 4, 4, 3), jnp.int32))


@pytest.mark.fast
def test_the_filters_are_the_papers():
    np.testing.assert_array_equal(binomial(2) * 2, [1, 1])
    np.testing.assert_array_equal(binomial(3) * 4, [1, 2, 1])
    np.testing.assert_array_equal(binomial(5) * 16, [1, 4, 6, 4, 1])


@pytest.mark.fast
def test_a_constant_stays_and_the_finest_stripes_vanish():
    """A filter (1, 2, 1) / 4 is zero at the highest frequency, which a bare stride aliases to 1."""
    stripes = jnp.tile(jnp.array([1.0, -1.0])[:, None, None], (4, 8, 2))  # 8 8 2
    np.testing.assert_array_equal(BlurPool()(stripes), jnp.zeros((4, 4, 2)))
    np.testing.assert_array_equal(BlurPool()(jnp.ones((2, 8, 8, 2))), jnp.ones((2, 4, 4, 2)))
    np.testing.assert_array_equal(BlurPool(1)(stripes), stripes[::2, ::2])


@pytest.mark.oracle
@pytest.mark.parametrize("mode", ["reflect", "constant"])
@pytest.mark.parametrize(("kernel", "strides"), [(3, 2), (5, 2), (4, 2), (3, 1)])
def test_numbers_are_timms(kernel, strides, mode):
    torch_weights.timm_blocks()
    from timm.layers import BlurPool2d

    theirs = BlurPool2d(3, kernel, strides, pad_mode=mode)
    torch_weights.assert_equal(BlurPool(kernel, strides, pad_mode=mode), theirs, (2, 9, 8, 3))
