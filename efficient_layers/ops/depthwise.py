# SPDX-License-Identifier: Apache-2.0
"""Depthwise convolution as a sum of shifted slices.

    y[n, i, c] = sum_t x[n, s i + d t, c] w[t, c]

XLA's CPU backend runs a grouped convolution one channel at a time (129 ms for 3x3 on 8x56x56x144,
two cores); the sum of nine slices times per-channel weights is one fused loop over memory (2 ms).
What then costs most is memory: no array is padded or dilated where that can be avoided.
"""

import functools
import itertools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata

from efficient_layers.ops.depthwise_kernel import kernel_gradient
from efficient_layers.ops.precision import float32_or_wider
from efficient_layers.ops.trilinear import Form
from efficient_layers.ops.window import Window

MAX_TAPS = 64
# Larger kernels are not faster in parts, of which they have many (7x7: 49, 3.6 s to compile).
MAX_TAPS_IN_PARTS = 9
# From so many taps on, a program of its own: XLA computes the sum anew in the loop of every reader,
# four times for a layer norm (7x7 and the norm, 56x56x96, one core: 1.3 ms for 4.5), also across an
# `optimization_barrier`; readers that would have been fused cost less.
MIN_TAPS_APART = 49


def serves(window: Window) -> bool:
    """Whether `window` is depthwise (any channel multiplier) with a kernel to unroll."""
    channelwise = window.w[-2] == 1 and window.groups == window.x[-1] > 1
    return channelwise and window.taps <= MAX_TAPS


@dataclass(frozen=True)
class Depthwise(Form):
    """Shifted slices forward and back; the kernel's gradient some rows at a time."""

    @property
    def multiplier(self) -> int:
        return self.window.w[-1] // self.window.x[-1]

    def forward(self, x: jax.Array, w: jax.Array) -> jax.Array:
        return _convolve(self.window, _repeat(x, self.multiplier), w)

    def input_gradient(self, w: jax.Array, g: jax.Array) -> jax.Array:
        flipped = lax.rev(w, range(len(self.window.kernel)))
        dx = _convolve(self.window.transposed(), g, flipped)
        if self.multiplier == 1:
            return dx
        return dx.reshape(*self.window.x, self.multiplier).sum(-1)

    def kernel_gradient(self, x: jax.Array, g: jax.Array) -> jax.Array:
        return kernel_gradient(self.window, _repeat(x, self.multiplier), g)


def _repeat(x, multiplier):
    return x if multiplier == 1 else jnp.repeat(x, multiplier, axis=-1)


def _convolve(window, x, w):
    wide = float32_or_wider(x.dtype)
    w = w.astype(wide)
    if all(d == 1 for d in window.x_dilation):
        if window.taps >= MIN_TAPS_APART:
            with set_xla_metadata(inlineable="false"):
                return _sum_apart(window, x, w)
        in_parts = window.taps <= MAX_TAPS_IN_PARTS
        return (_in_parts if in_parts else _sum_of_slices)(window, x, w)
    if all(s == 1 for s in window.strides):
        return _by_phase(window, x, w)
    return _sum_of_slices(window, x, w)


def _sum_of_slices(window, x, w):
    parts = window.slices(window.pad(x), window.y[1:-1])
    products = (part.astype(w.dtype) * w[(*tap, 0)] for tap, part in parts)
    return functools.reduce(jnp.add, products).astype(x.dtype)


_sum_apart = jax.jit(_sum_of_slices, static_argnums=0)


def _in_parts(window, x, w, cuts=()):
    """Each part of y from the taps that reach it, with nothing padded.

    XLA fuses the concatenation with the sums. A padded copy of x costs as much as the convolution
    (8x28x28x192: 0.7 ms for 1.4), and its fresh pages more (8x112x112x96, stride 2: 2.6 for 16).
    Edges from padded strips are as fast and took 7 s more to compile in a step of MobileNetV2.
    """
    axis = len(cuts)
    if axis < len(window.kernel):
        parts = [_in_parts(window, x, w, (*cuts, cut)) for cut in window.cuts(axis)]
        return jnp.concatenate(parts, 1 + axis)
    terms = []
    for tap in itertools.product(*(taps for _, _, taps in cuts)):
        spans = (
            window.span(a, t, lo, hi)
            for a, (t, (lo, hi, _)) in enumerate(zip(tap, cuts, strict=True))
        )
        terms.append(x[(slice(None), *spans)].astype(w.dtype) * w[(*tap, 0)])
    zero = jnp.zeros((x.shape[0], *(hi - lo for lo, hi, _ in cuts), x.shape[-1]), w.dtype)
    return functools.reduce(jnp.add, terms, *(() if terms else (zero,))).astype(x.dtype)


def _by_phase(window, x, w):
    """Input dilation s (the gradient of stride s) without its zeros: s outputs, one a phase.

    Output s m + a reads x[m + offset] for the taps t with a + d t - lo = s offset. Interleaving is
    part of the same loop (8x112x112x96 -> s = 2: 12 ms for 27).
    """
    taps = [_taps_by_phase(window, axis) for axis in range(len(window.kernel))]
    lengths = [-(-size // s) for size, s in zip(window.y[1:-1], window.x_dilation, strict=True)]
    config, starts = [], []
    for phases, size, length in zip(taps, window.x[1:-1], lengths, strict=True):
        offsets = [offset for phase in phases for _, offset in phase]
        starts.append(max(0, -min(offsets)))
        config.append((starts[-1], max(0, max(offsets) + length - size), 0))
    padded = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *config, (0, 0, 0)])

    def phase(chosen):
        terms = []
        for pairs in itertools.product(*chosen):
            begin = [start + offset for (_, offset), start in zip(pairs, starts, strict=True)]
            index = tuple(slice(b, b + n) for b, n in zip(begin, lengths, strict=True))
            tap = tuple(t for t, _ in pairs)
            terms.append(padded[(slice(None), *index)].astype(w.dtype) * w[(*tap, 0)])
        zero = jnp.zeros((x.shape[0], *lengths, x.shape[-1]), w.dtype)
        return functools.reduce(jnp.add, terms, *(() if terms else (zero,))).astype(x.dtype)

    def stacked(axis, chosen):
        if axis == len(taps):
            return phase(chosen)
        return jnp.stack([stacked(axis + 1, (*chosen, p)) for p in taps[axis]], axis=2 + axis)

    interleaved = stacked(0, ())
    sizes = [n * s for n, s in zip(lengths, window.x_dilation, strict=True)]
    y = interleaved.reshape(x.shape[0], *sizes, x.shape[-1])
    return lax.slice(y, [0] * y.ndim, (*y.shape[:1], *window.y[1:-1], *y.shape[-1:]))


def _taps_by_phase(window, axis):
    """For each phase of an axis: the (tap, offset) that reach a value of x and not a zero."""
    s, d, lo = window.x_dilation[axis], window.w_dilation[axis], window.padding[axis][0]
    positions = [(tap, tap * d - lo) for tap in range(window.kernel[axis])]
    return [[(t, (a + p) // s) for t, p in positions if (a + p) % s == 0] for a in range(s)]
