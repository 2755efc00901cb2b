# SPDX-License-Identifier: Apache-2.0
"""Dense 3x3 convolution with fewer multiplications: Winograd's minimal filtering F(m, 3) on rows.

The output is cut into strips of m rows; each reads m + 2 rows of x, overlapping by two.

    y = A^T [ sum_(b, c) (G w) * (B^T x) ],        m = 4 or 2

B, G and A are small constants that mix rows, `*` is elementwise, b runs over the three columns of
the kernel: m + 2 matrix products instead of 3 m. XLA's own convolution reaches 70 to 165 of 205
GFLOP/s here; this form counts as up to 220. The two-dimensional F(m x m, 3 x 3) saves twice that
in products, but its (m + 2)^2 transformed tiles compile in 4 s a layer with gradients where this
takes 0.3 to 0.6 (see docs/LOG.md). The price is rounding: errors of 2e-6 (m = 4) of the largest
number where the definition has 7e-7, so a convolution asked for a `precision` does not come here.

Reference: Lavin & Gray, *Fast Algorithms for Convolutional Neural Networks*, CVPR 2016
(arXiv 1509.09308), sections 4.1 and 4.3. The kernel's gradient is the same algorithm transposed.
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from efficient_layers.ops.trilinear import Form
from efficient_layers.ops.window import Window

MIN_CHANNELS = 32  # in and out: below, adding costs more than the saved products
MIN_NUMBERS = 6000  # strips x columns of the whole batch x channels: less does not repay the loops
STRIPS_AT_ONCE = 800  # strips x columns of a block of images: its transformed rows stay in cache
NARROW = 64  # outputs up to which the kernel's gradient is the faster product transposed
_DEFAULT_PRECISION = "jax_default_matmul_precision"  # a name that jax's types do not declare


@dataclass(frozen=True, eq=False)
class Filter:
    """The constants of F(m, 3): B^T, G and A^T."""

    inputs: np.ndarray
    kernel: np.ndarray
    outputs: np.ndarray

    @property
    def m(self) -> int:
        return len(self.outputs)

    def strips(self, height: int) -> int:
        return -(-height // self.m)


F2 = Filter(
    inputs=np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], np.float32),
    kernel=np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]], np.float32) / 2,
    outputs=np.array([[1, 1, 1, 0], [0, 1, -1, -1]], np.float32),
)
F4 = Filter(
    inputs=np.array(
        [
            [4, 0, -5, 0, 1, 0],
            [0, -4, -4, 1, 1, 0],
            [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0],
            [0, 2, -1, -2, 1, 0],
            [0, 4, 0, -5, 0, 1],
        ],
        np.float32,
    ),
    kernel=np.array(
        [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], np.float32
    )
    / 24,
    outputs=np.array(
        [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
        np.float32,
    ),
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
        and window.x[0] * _strips(window) * min(window.w[-2:]) >= MIN_NUMBERS
        and window.dtype == jnp.float32
        and window.precision is None
        and getattr(jax.config, _DEFAULT_PRECISION) is None
    )


@dataclass(frozen=True)
class Winograd(Form):
    """Strips of a few images at a time: transform, multiply, transform back."""

    def forward(self, x: jax.Array, w: jax.Array) -> jax.Array:
        window, filter_ = self.window, _filter(self.window)
        size, out = len(filter_.inputs), window.w[-1]
        kernel = (filter_.kernel @ w.reshape(3, -1)).reshape(size, -1, out)
        kernel = lax.optimization_barrier(kernel)  # once, not in every block

        def block(x):
            columns = _side_by_side(_transformed(window, filter_, x), window.y[2])
            products = lax.dot_general(columns, kernel, (((2,), (1,)), ((0,), (0,))))
            return _assemble(window, filter_, products.reshape(size, *_grid(window, x), out))

        return _by_block(window, block, x)

    def input_gradient(self, w: jax.Array, g: jax.Array) -> jax.Array:
        """Products with (b, c) as outputs: a kernel transposed beforehand would cost a copy."""
        window = self.window.transposed()
        filter_ = _filter(window)
        size, c = len(filter_.inputs), window.w[-2]
        kernel = (filter_.kernel[:, ::-1] @ w.reshape(3, -1)).reshape(size, 3 * c, -1)
        kernel = lax.optimization_barrier(kernel)

        def block(g):
            rows = _transformed(window, filter_, g)
            flat = rows.reshape(size, -1, g.shape[-1])
            products = lax.dot_general(flat, kernel, (((2,), (2,)), ((0,), (0,))))
            products = products.reshape(*rows.shape[:-1], 3, c)
            width = window.y[2]
            shifted = (products[:, :, :, 2 - b : 2 - b + width, b] for b in range(3))
            return _assemble(window, filter_, functools.reduce(jnp.add, shifted))

        return _by_block(window, block, g)

    def kernel_gradient(self, x: jax.Array, g: jax.Array) -> jax.Array:
        window, filter_ = self.window, _filter(self.window)
        size, (c, o) = len(filter_.inputs), window.w[-2:]
        narrow = o <= NARROW

        def block(x, g):
            columns = _side_by_side(_transformed(window, filter_, x), window.y[2])
            cotangents = _cotangents(window, filter_, g)
            pair = (cotangents, columns) if narrow else (columns, cotangents)
            return lax.dot_general(*pair, (((1,), (1,)), ((0,), (0,))))

        def add(total, pair):
            return total + block(*pair), None

        xs, gs = _blocks(window, x), _blocks(window, g)
        if len(xs) == 1:
            total = block(x, g)
        else:
            start = jnp.zeros((size, o, 3 * c) if narrow else (size, 3 * c, o), x.dtype)
            total, _ = lax.scan(add, start, (xs, gs))
        dw = filter_.kernel.T @ total.reshape(size, -1)
        dw = jnp.swapaxes(dw.reshape(3, o, 3 * c), 1, 2) if narrow else dw
        return dw.reshape(window.w)


def _filter(window):
    """The filter of fewest products, the more exact one if both have as many."""
    return min((F2, F4), key=lambda f: f.strips(window.y[1]) * len(f.inputs))


def _strips(window):
    return _filter(window).strips(window.y[1]) * window.y[2]


def _grid(window, images):
    return len(images), _filter(window).strips(window.y[1]), window.y[2]


def _blocks(window, x):
    """x with its images in blocks of about `STRIPS_AT_ONCE` strips: k n/k h w c."""
    most = max(1, STRIPS_AT_ONCE // _strips(window))
    images = max(size for size in range(1, most + 1) if x.shape[0] % size == 0)
    return x.reshape(-1, images, *x.shape[1:])


def _by_block(window, block, x):
    blocks = _blocks(window, x)
    if len(blocks) == 1:
        return block(x)
    y = lax.map(block, blocks)
    return y.reshape(-1, *y.shape[2:])


def _transformed(window, filter_, x):
    """B^T x of every strip: m + 2, n, strips, width + 2, c."""
    m, strips = filter_.m, filter_.strips(window.y[1])
    top, sides = window.padding[0][0], window.padding[1]
    bottom = m * strips + 2 - x.shape[1] - top
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (top, bottom, 0), (*sides, 0), (0, 0, 0)])
    reach = range(m + 2)
    rows = [x[:, i : i + m * strips - m + 1 : m] for i in reach]
    return lax.optimization_barrier(_mix(filter_.inputs, rows, 0))  # not anew for every column


def _side_by_side(rows, width):
    """Each column with its two neighbours: m + 2, (n strips width), (b c)."""
    columns = jnp.concatenate([rows[:, :, :, b : b + width] for b in range(3)], axis=-1)
    columns = lax.optimization_barrier(columns)
    return columns.reshape(len(rows), -1, columns.shape[-1])


def _assemble(window, filter_, products):
    """A^T products, m + 2 of n strips width o, as n h w o."""
    y = _mix(filter_.outputs, list(products), 2)
    return y.reshape(len(y), -1, *y.shape[3:])[:, : window.y[1]]


def _cotangents(window, filter_, g):
    """A g of every strip: m + 2, (n strips width), o."""
    m, strips = filter_.m, filter_.strips(window.y[1])
    g = jnp.pad(g, [(0, 0), (0, m * strips - g.shape[1]), (0, 0), (0, 0)])
    mixed = _mix(filter_.outputs.T, [g[:, i::m] for i in range(m)], 0)
    return lax.optimization_barrier(mixed).reshape(m + 2, -1, g.shape[-1])


def _mix(matrix, arrays, axis):
    """matrix @ arrays, the result's index on a new `axis`: one loop, zeros multiplied too.

    Written out a row of the matrix it would be a loop (and a second of compiling) for each.
    """
    shape = [-1 if i == axis else 1 for i in range(arrays[0].ndim + 1)]
    terms = (
        jnp.asarray(column).reshape(shape) * jnp.expand_dims(array, axis)
        for column, array in zip(matrix.T, arrays, strict=True)
    )
    return functools.reduce(jnp.add, terms)
