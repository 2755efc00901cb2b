# SPDX-License-Identifier: Apache-2.0
"""Functions on arrays: the maths, and every platform-specific fast path. JAX only."""

from efficient_layers.ops.activation import gelu, hard_sigmoid, hard_swish, relu6
from efficient_layers.ops.allocator import keep_freed_memory
from efficient_layers.ops.attention import dot_product_attention
from efficient_layers.ops.batch_norm import batch_norm
from efficient_layers.ops.channel_shuffle import channel_shuffle
from efficient_layers.ops.conv import conv_general_dilated
from efficient_layers.ops.group_norm import group_norm
from efficient_layers.ops.layer_norm import layer_norm
from efficient_layers.ops.lowering import current_lowering, lowering
from efficient_layers.ops.max_pool import max_pool
from efficient_layers.ops.rms_norm import rms_norm

__all__ = [
    "batch_norm",
    "channel_shuffle",
    "conv_general_dilated",
    "current_lowering",
    "dot_product_attention",
    "gelu",
    "group_norm",
    "hard_sigmoid",
    "hard_swish",
    "keep_freed_memory",
    "layer_norm",
    "lowering",
    "max_pool",
    "relu6",
    "rms_norm",
]
