# SPDX-License-Identifier: Apache-2.0
"""Convolution: `jax.lax.conv_general_dilated`, in the form that the current lowering is fast at."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from efficient_layers.ops import depthwise, grouped, patches, pointwise, winograd
from efficient_layers.ops.lowering import current_lowering
from efficient_layers.ops.trilinear import Form, convolve
from efficient_layers.ops.window import Window

_CPU_FORMS = (
    (depthwise.serves, depthwise.Depthwise),
    (grouped.serves, grouped.Grouped),
    (pointwise.serves, pointwise.Pointwise),
    (patches.serves, patches.Patches),
    (winograd.serves, winograd.Winograd),
)


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: Any = None,
    out_sharding: Any = None,
) -> jax.Array:
    """As `jax.lax.conv_general_dilated`: same arguments, same result, every transform.

    Under the lowering `"cpu"`, channels-last floating-point convolutions of known shape take a form
    that is fast there (depthwise: shifted slices; grouped: one convolution a group; 1x1: matrix
    product; few channels: patches; wide 3x3: Winograd's filters). Everything else, and every other
    lowering, is plain XLA.

    Raises:
      ValueError: ranks, channels or groups that do not fit; the message says what was got.
    """
    _check_rank(lhs, rhs)
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    _check(lhs, rhs, numbers, feature_group_count, batch_group_count)
    plain = batch_group_count == 1 and preferred_element_type is None and out_sharding is None
    dilated = any(d != 1 for d in lhs_dilation or ())
    plain = plain and not (dilated and isinstance(padding, str))  # which XLA refuses
    if current_lowering() == "cpu" and plain and _is_static(lhs, rhs, numbers):
        rank = lhs.ndim - 2
        strides = tuple(window_strides)
        x_dilation = tuple(lhs_dilation or (1,) * rank)
        w_dilation = tuple(rhs_dilation or (1,) * rank)
        pads = _pads(padding, lhs.shape[1:-1], rhs.shape[:-2], strides, x_dilation, w_dilation)
        window = Window(
            lhs.shape,
            rhs.shape,
            strides,
            pads,
            x_dilation,
            w_dilation,
            feature_group_count,
            lhs.dtype,
            precision,
        )
        if 0 not in (*lhs.shape, *rhs.shape, *window.y):
            return convolve(_cpu_form(window), lhs, rhs)
    return lax.conv_general_dilated(
        lhs,
        rhs,
        window_strides,
        padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=numbers,
        feature_group_count=feature_group_count,
        batch_group_count=batch_group_count,
        precision=precision,
        preferred_element_type=preferred_element_type,
        out_sharding=out_sharding,
    )


def _cpu_form(window: Window) -> Form:
    for serves, form in _CPU_FORMS:
        if serves(window):
            return form(window)
    return Form(window)


def _is_static(lhs, rhs, numbers) -> bool:
    """Channels last, one floating dtype, all sizes known (none symbolic), no manual mesh axes.

    Inside `shard_map(check_vma=True)` values carry the mesh axes over which they vary, which only
    XLA's own operations track.
    """
    rank = lhs.ndim - 2
    last = (0, rank + 1, *range(1, rank + 1))
    kernel_last = (rank + 1, rank, *range(rank))
    return (
        rank >= 1
        and (numbers.lhs_spec, numbers.out_spec) == (last, last)
        and numbers.rhs_spec == kernel_last
        and lhs.dtype == rhs.dtype
        and jnp.issubdtype(lhs.dtype, jnp.floating)
        and all(isinstance(size, int) for size in (*lhs.shape, *rhs.shape))
        and all(jax.typeof(a).manual_axis_type.empty for a in (lhs, rhs))
    )


def _pads(padding, sizes, kernel, strides, x_dilation, w_dilation):
    """`padding` as (low, high) pairs."""
    if not isinstance(padding, str):
        return tuple((int(lo), int(hi)) for lo, hi in padding)
    dilated = [(s - 1) * d + 1 for s, d in zip(sizes, x_dilation, strict=True)]
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, w_dilation, strict=True)]
    return tuple(lax.padtype_to_pads(dilated, extent, strides, padding))


def _check_rank(lhs, rhs):
    if lhs.ndim != rhs.ndim:
        raise ValueError(
            "A convolution expects an input and a kernel of the same rank. "
            f"Got {lhs.shape} and {rhs.shape}."
        )


def _check(lhs, rhs, numbers, groups, batch_groups):
    if groups < 1:
        raise ValueError(f"A convolution expects feature_group_count of at least 1. Got {groups}.")
    channels, per_group = lhs.shape[numbers.lhs_spec[1]], rhs.shape[numbers.rhs_spec[1]]
    out = rhs.shape[numbers.rhs_spec[0]]
    if channels != per_group * groups:
        raise ValueError(
            f"A convolution expects {per_group} x {groups} = {per_group * groups} input channels "
            f"(kernel {rhs.shape}, feature_group_count={groups}). Got an input of {lhs.shape}."
        )
    if out % groups or out % batch_groups:
        raise ValueError(
            f"A convolution expects its groups to divide the {out} output channels. "
            f"Got feature_group_count={groups}, batch_group_count={batch_groups}."
        )
