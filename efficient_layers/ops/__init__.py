# SPDX-License-Identifier: Apache-2.0
"""Functions on arrays: the maths, and every platform-specific fast path. JAX only."""

from efficient_layers.ops.activation import relu6
from efficient_layers.ops.allocator import keep_freed_memory
from efficient_layers.ops.batch_norm import batch_norm
from efficient_layers.ops.channel_shuffle import channel_shuffle
from efficient_layers.ops.conv import conv_general_dilated
from efficient_layers.ops.lowering import current_lowering, lowering

__all__ = [
    "batch_norm",
    "channel_shuffle",
    "conv_general_dilated",
    "current_lowering",
    "keep_freed_memory",
    "lowering",
    "relu6",
]
