# SPDX-License-Identifier: Apache-2.0
"""Convolution: `jax.lax.conv_general_dilated`, in the form that the current lowering is fast at."""

import jax


def conv_general_dilated(lhs, rhs, window_strides, padding, **kwargs):
    """As `jax.lax.conv_general_dilated`."""
    return jax.lax.conv_general_dilated(lhs, rhs, window_strides, padding, **kwargs)
