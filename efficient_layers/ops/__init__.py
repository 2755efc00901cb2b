# SPDX-License-Identifier: Apache-2.0
"""Functions on arrays: the maths, and every platform-specific fast path. JAX only."""

from efficient_layers.ops.conv import conv_general_dilated
from efficient_layers.ops.lowering import current_lowering, lowering

__all__ = ["conv_general_dilated", "current_lowering", "lowering"]
