# SPDX-License-Identifier: Apache-2.0
"""Dense 3x3 convolution with fewer multiplications: Winograd's minimal filtering F(m x m, 3x3).

The output is cut into tiles of m x m; each reads m + 2 by m + 2 numbers of x, overlapping by two.

    y = A^T [ sum_c (G w G^T) * (B^T x B) ] A,        m = 4 or 2

B, G and A are small constants, `*` is elementwise, so the sum over channels is (m + 2)^2 matrix
products over all tiles: 36 multiplications for 16 outputs where the definition has 144 (m = 4), 16
for 4 instead of 36 (m = 2). XLA's own convolution reaches 90 to 165 of 205 GFLOP/s here; this form
counts as up to 250. The price is rounding: errors of 4e-6 (m = 4; 7e-6 in w's gradient) of the
largest number where the definition has 3e-7, so a convolution asked for a `precision` does not
come here.

Reference: Lavin & Gray, *Fast Algorithms for Convolutional Neural Networks*, CVPR 2016
(arXiv 1509.09308), sections 4.1 to 4.3. The kernel's gradient is the same algorithm transposed.
"""

import functools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from efficient_layers.ops.trilinear import Form
from efficient_layers.ops.window import Window

MIN_CHANNELS = 32  # in and out: below, adding costs more than the saved products
MIN_NUMBERS = 6000  # tiles of the whole batch x channels: less is done before 36 products start
TILES_AT_ONCE = 400  # keeps the transformed tiles of a block in cache, the products efficient
MOST_PADDING = 1.1  # by which whole tiles of 4 may exceed the output's height or width
_DEFAULT_PRECISION = "jax_default_matmul_precision"  # a name that jax's types do not declare


@dataclass(frozen=True)
class Filter:
    """The constants of F(m x m, 3x3): B^T, G and A^T."""

    inputs: tuple[tuple[float, ...], ...]
    kernel: tuple[tuple[float, ...], ...]
    outputs: tuple[tuple[float, ...], ...]

    @property
    def m(self) -> int:
        return len(self.outputs)

    @property
    def kernel_2d(self) -> np.ndarray:
        """G x G: the nine numbers of a kernel to its (m + 2)^2, as one matrix."""
        return np.kron(self.kernel, self.kernel).astype(np.float32)


F2 = Filter(
    inputs=((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
    kernel=((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
    outputs=((1, 1, 1, 0), (0, 1, -1, -1)),
)
F4 = Filter(
    inputs=(
        (4, 0, -5, 0, 1, 0),
        (0, -4, -4, 1, 1, 0),
        (0, 4, -4, -1, 1, 0),
        (0, -2, -1, 2, 1, 0),
        (0, 2, -1, -2, 1, 0),
        (0, 4, 0, -5, 0, 1),
    ),
    kernel=(
        (1 / 4, 0, 0),
        (-1 / 6, -1 / 6, -1 / 6),
        (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6),
        (0, 0, 1),
    ),
    outputs=((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
)


def serves(window: Window) -> bool:
    """Whether `window` is a dense 3x3 of unit stride, wide enough, in float32 at no set precision.

    Padding of 0 to 2 a side, so that the gradient of the input is such a convolution too.
    """
    return (
        window.kernel == (3, 3)
        and window.groups == 1
        and {*window.strides, *window.x_dilation, *window.w_dilation} == {1}
        and all(0 <= p <= 2 for pair in window.padding for p in pair)
        and min(window.w[-2:]) >= MIN_CHANNELS
        and _numbers(window) >= MIN_NUMBERS
        and window.dtype == jnp.float32
        and window.precision is None
        and getattr(jax.config, _DEFAULT_PRECISION) is None
    )


@dataclass(frozen=True)
class Winograd(Form):
    """Tiles of a few images at a time: transform, multiply, transform back."""

    def forward(self, x: jax.Array, w: jax.Array) -> jax.Array:
        return _convolve(self.window, x, w)

    def input_gradient(self, w: jax.Array, g: jax.Array) -> jax.Array:
        flipped = jnp.swapaxes(lax.rev(w, (0, 1)), 2, 3)
        return _convolve(self.window.transposed(), g, flipped)

    def kernel_gradient(self, x: jax.Array, g: jax.Array) -> jax.Array:
        return _kernel_gradient(self.window, x, g)


def _filter(window):
    return F4 if all(-(-s // 4) * 4 <= MOST_PADDING * s for s in window.y[1:-1]) else F2


def _numbers(window):
    tiles = math.prod(_tiles(window, _filter(window)))
    return window.x[0] * tiles * min(window.w[-2:])


def _tiles(window, filter_):
    return tuple(-(-s // filter_.m) for s in window.y[1:-1])


def _convolve(window, x, w):
    filter_ = _filter(window)
    n, size, o = x.shape[0], len(filter_.inputs), w.shape[-1]
    kernel = (filter_.kernel_2d @ w.reshape(9, -1)).reshape(size, size, *w.shape[2:])
    kernel = [[kernel[i, j] for j in range(size)] for i in range(size)]
    kernel = lax.optimization_barrier(kernel)  # once, not in every block

    def block(x):
        tiles = _input_tiles(window, filter_, x)
        shape = (*tiles[0][0].shape[:-1], o)
        products = _each(lambda v, u: (_rows(v) @ u).reshape(shape), tiles, kernel)
        return _assemble(window, _transform_2d(filter_.outputs, products))

    blocks = _blocks(window, filter_, x)
    if len(blocks) == 1:
        return block(x)
    return lax.map(block, blocks).reshape(n, *window.y[1:-1], o)


def _kernel_gradient(window, x, g):
    filter_ = _filter(window)
    c, o, size = x.shape[-1], g.shape[-1], len(filter_.inputs)
    back = np.transpose(filter_.outputs)

    def block(x, g):
        tiles = _input_tiles(window, filter_, x)
        cotangents = _transform_2d(back, _output_tiles(window, filter_, g))
        return _each(lambda v, u: _contract_rows(_rows(v), _rows(u)), tiles, cotangents)

    def add(total, pair):
        return _each(jnp.add, total, block(*pair)), None

    pairs = _blocks(window, filter_, x), _blocks(window, filter_, g)
    if len(pairs[0]) == 1:
        total = block(x, g)
    else:
        start = [[jnp.zeros((c, o), x.dtype)] * size] * size
        total, _ = lax.scan(add, start, pairs)
    total = jnp.stack([t for row in total for t in row]).reshape(size * size, -1)
    return (filter_.kernel_2d.T @ total).reshape(window.w)


def _blocks(window, filter_, x):
    """x with its images in blocks of about `TILES_AT_ONCE` tiles: k n/k h w c."""
    most = max(1, TILES_AT_ONCE // math.prod(_tiles(window, filter_)))
    images = max(size for size in range(1, most + 1) if x.shape[0] % size == 0)
    return x.reshape(-1, images, *x.shape[1:])


def _input_tiles(window, filter_, x):
    """B^T x B of every tile: a grid of m + 2 by m + 2 arrays n h/m w/m c."""
    m, (rows, columns) = filter_.m, _tiles(window, filter_)
    ends = [
        (lo, m * t + 2 - s - lo)
        for (lo, _), t, s in zip(window.padding, (rows, columns), x.shape[1:-1], strict=True)
    ]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((*e, 0) for e in ends), (0, 0, 0)])
    reach = range(m + 2)
    by_row = _transform(filter_.inputs, [x[:, i : i + m * rows - m + 1 : m] for i in reach])
    by_row = lax.optimization_barrier(by_row)  # fused into the next step it is computed six times
    return [
        _transform(filter_.inputs, [r[:, :, j : j + m * columns - m + 1 : m] for j in reach])
        for r in by_row
    ]


def _output_tiles(window, filter_, g):
    """g as a grid of m by m arrays n h/m w/m o."""
    m, (rows, columns) = filter_.m, _tiles(window, filter_)
    ends = [(0, 0), (0, m * rows - g.shape[1]), (0, m * columns - g.shape[2]), (0, 0)]
    g = jnp.pad(g, ends)
    return [[g[:, p::m, q::m] for q in range(m)] for p in range(m)]


def _assemble(window, grid):
    """A grid of m by m arrays n h/m w/m o as n h w o."""
    y = jnp.stack([jnp.concatenate(row, axis=-1) for row in grid], axis=2)  # n h/m m w/m (m o)
    m, (n, rows, _, columns, _) = len(grid), y.shape
    height, width = window.y[1:-1]
    return y.reshape(n, m * rows, m * columns, -1)[:, :height, :width]


def _transform_2d(matrix, grid):
    """matrix @ grid @ matrix^T; the first product is stored."""
    columns = [_transform(matrix, column) for column in zip(*grid, strict=True)]
    rows = lax.optimization_barrier(list(zip(*columns, strict=True)))
    return [_transform(matrix, row) for row in rows]


def _transform(matrix, arrays):
    """matrix @ arrays, without the products by 0, 1 and -1."""
    return [
        functools.reduce(jnp.add, [_times(m, a) for m, a in zip(row, arrays, strict=True) if m])
        for row in matrix
    ]


def _times(factor, array):
    return array if factor == 1 else -array if factor == -1 else array * float(factor)


def _each(function, first, second):
    pairs = zip(first, second, strict=True)
    return [[function(a, b) for a, b in zip(*pair, strict=True)] for pair in pairs]


def _rows(tiles):
    return tiles.reshape(-1, tiles.shape[-1])


def _contract_rows(a, b):
    return lax.dot_general(a, b, (((0,), (0,)), ((), ())))
