# SPDX-License-Identifier: Apache-2.0
"""Multiply-accumulates of one dot product or convolution, from its shapes.

Conventions: a tap that falls on padding counts (as in torchvision's and timm's tables); a zero that
input dilation put between two elements does not. So a strided transposed convolution costs
`inputs x kernel taps`, the number that `torch.utils.flop_counter` gives and that of the forward
convolution whose gradient it is; with stride 1 it is an ordinary convolution on padded input.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

Shape = Sequence[int]


def dot_macs(lhs: Shape, rhs: Shape, dimension_numbers: Any) -> int:
    """MACs of `lax.dot_general`: output elements x contracted size."""
    (_, rhs_contract), (_, rhs_batch) = dimension_numbers
    taken = {*rhs_contract, *rhs_batch}
    free = prod(size for axis, size in enumerate(rhs) if axis not in taken)
    return prod(lhs) * free


def ragged_macs(lhs: Shape, rhs: Shape, dimension_numbers: Any) -> int:
    """MACs of `lax.ragged_dot_general` if every row of `lhs` belongs to one group (the most)."""
    (_, rhs_contract), (_, rhs_batch) = dimension_numbers.dot_dimension_numbers
    taken = {*rhs_contract, *rhs_batch, *dimension_numbers.rhs_group_dimensions}
    return prod(lhs) * prod(size for axis, size in enumerate(rhs) if axis not in taken)


def conv_macs(lhs: Shape, rhs: Shape, out: Shape, params: dict[str, Any]) -> int:
    """MACs of `lax.conv_general_dilated`, with groups, strides and both dilations."""
    numbers = params["dimension_numbers"]
    lhs_axes, rhs_axes, out_axes = numbers.lhs_spec[2:], numbers.rhs_spec[2:], numbers.out_spec[2:]
    # rhs_spec is (out features, in features of one group, *spatial).
    total = out[numbers.out_spec[0]] * out[numbers.out_spec[1]] * rhs[numbers.rhs_spec[1]]
    for d, (i, k, o) in enumerate(zip(lhs_axes, rhs_axes, out_axes, strict=True)):
        total *= _taps(
            lhs[i],
            rhs[k],
            out[o],
            stride=params["window_strides"][d],
            pad=params["padding"][d][0],
            lhs_dilation=params["lhs_dilation"][d],
            rhs_dilation=params["rhs_dilation"][d],
        )
    return total


def _taps(
    size: int, kernel: int, out: int, *, stride: int, pad: int, lhs_dilation: int, rhs_dilation: int
) -> int:
    """(output, kernel tap) pairs along one axis that do not meet a zero put in by dilation."""
    if lhs_dilation == 1:
        return out * kernel
    if stride == 1:
        return size * kernel
    position = np.arange(out)[:, None] * stride + np.arange(kernel)[None] * rhs_dilation - pad
    inside = (position >= 0) & (position <= (size - 1) * lhs_dilation)
    return int(np.sum(inside & (position % lhs_dilation == 0)))
