# SPDX-License-Identifier: Apache-2.0
"""The shape of one convolution: static, hashable, channels last (x: n *s c, w: *k c/groups o)."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


@dataclass(frozen=True)
class Window:
    """Everything that a convolution y = x * w is told besides the numbers in x and w."""

    x: tuple[int, ...]
    w: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    x_dilation: tuple[int, ...]
    w_dilation: tuple[int, ...]
    groups: int
    dtype: np.dtype
    precision: Any = None

    @property
    def kernel(self) -> tuple[int, ...]:
        return self.w[:-2]

    @property
    def taps(self) -> int:
        """Positions of the kernel, 9 for 3x3."""
        return math.prod(self.kernel)

    @cached_property
    def extent(self) -> tuple[int, ...]:
        """Kernel size with its dilation: (k - 1) d + 1."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.w_dilation, strict=True))

    @cached_property
    def dilated(self) -> tuple[int, ...]:
        """Spatial size of x with its dilation, before padding."""
        sizes = zip(self.x[1:-1], self.x_dilation, strict=True)
        return tuple((s - 1) * d + 1 if s else 0 for s, d in sizes)

    @cached_property
    def y(self) -> tuple[int, ...]:
        """Shape of the output: n *s' o."""
        parts = zip(self.dilated, self.padding, self.extent, self.strides, strict=True)
        spatial = (max(0, (s + lo + hi - k) // t + 1) for s, (lo, hi), k, t in parts)
        return (self.x[0], *spatial, self.w[-1])

    def transposed(self) -> "Window":
        """The window that carries a gradient of y back to x (with the kernel flipped)."""
        padding = []
        out = ((s - 1) * t + 1 for s, t in zip(self.y[1:-1], self.strides, strict=True))
        for size, o, k, (lo, _) in zip(self.dilated, out, self.extent, self.padding, strict=True):
            before = k - 1 - lo
            padding.append((before, size + k - 1 - o - before))
        return replace(
            self,
            x=self.y,
            strides=self.x_dilation,
            padding=tuple(padding),
            x_dilation=self.strides,
        )

    def reach(self, axis: int, tap: int) -> tuple[int, int]:
        """Outputs lo..hi along a spatial axis whose `tap` falls inside x (x not dilated)."""
        offset = self.padding[axis][0] - tap * self.w_dilation[axis]
        stride = self.strides[axis]
        lo = max(0, -(-offset // stride))
        hi = min(self.y[1 + axis], (self.x[1 + axis] - 1 + offset) // stride + 1)
        return lo, max(lo, hi)

    def span(self, axis: int, tap: int, lo: int, hi: int) -> slice:
        """The slice of x that outputs lo..hi along an axis read through `tap` (x not dilated)."""
        stride = self.strides[axis]
        begin = lo * stride + tap * self.w_dilation[axis] - self.padding[axis][0]
        return slice(begin, max(begin, begin + (hi - lo - 1) * stride + 1), stride)

    def cuts(self, axis: int) -> list[tuple[int, int, list[int]]]:
        """Outputs lo..hi along an axis, one part after another, and the taps that reach each."""
        reach = [self.reach(axis, tap) for tap in range(self.kernel[axis])]
        ends = sorted({0, self.y[1 + axis], *itertools.chain(*((a, b) for a, b in reach if a < b))})
        return [
            (lo, hi, [tap for tap, (a, b) in enumerate(reach) if a <= lo and hi <= b])
            for lo, hi in itertools.pairwise(ends)
        ]

    def pad(self, x: jax.Array) -> jax.Array:
        """x with its padding and dilation written out as zeros."""
        spatial = zip(self.padding, self.x_dilation, strict=True)
        config = [(0, 0, 0), *((lo, hi, d - 1) for (lo, hi), d in spatial), (0, 0, 0)]
        return lax.pad(x, jnp.zeros((), x.dtype), config)

    def slices(
        self, padded: jax.Array, out: tuple[int, ...], leading: int = 1
    ) -> Iterator[tuple[tuple[int, ...], jax.Array]]:
        """For each tap the part of `padded` that it multiplies: (*leading axes, *out, c)."""
        for tap in itertools.product(*map(range, self.kernel)):
            start = [t * d for t, d in zip(tap, self.w_dilation, strict=True)]
            ends = zip(start, out, self.strides, strict=True)
            index = tuple(slice(a, a + (o - 1) * s + 1, s) for a, o, s in ends)
            yield tap, padded[(slice(None),) * leading + index]

    def convolve(self, x: jax.Array, w: jax.Array) -> jax.Array:
        """The reference: plain XLA."""
        rank = len(self.kernel)
        last, spatial = rank + 1, tuple(range(1, rank + 1))
        numbers = lax.ConvDimensionNumbers(
            (0, last, *spatial), (last, rank, *range(rank)), (0, last, *spatial)
        )
        return lax.conv_general_dilated(
            x,
            w,
            self.strides,
            self.padding,
            lhs_dilation=self.x_dilation,
            rhs_dilation=self.w_dilation,
            dimension_numbers=numbers,
            feature_group_count=self.groups,
            precision=self.precision,
        )
