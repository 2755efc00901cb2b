# SPDX-License-Identifier: Apache-2.0
"""Convolution layer: a drop-in replacement of `flax.nnx.Conv` that picks a fast form."""

import jax
from flax import nnx

from efficient_layers.ops import conv


class Conv(nnx.Conv):
    """`flax.nnx.Conv` with the convolution of `efficient_layers.ops`."""

    def __init__(self, *args, conv_general_dilated=conv.conv_general_dilated, **kwargs):
        super().__init__(*args, conv_general_dilated=conv_general_dilated, **kwargs)

    def __call__(self, inputs, out_sharding=None):
        with jax.named_scope("Conv"):
            return super().__call__(inputs, out_sharding)
