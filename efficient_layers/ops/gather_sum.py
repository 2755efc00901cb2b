# SPDX-License-Identifier: Apache-2.0
"""Sums of picked rows whose transpose is again a sum of picked rows.

The gradient of a gather is a scatter-add, which XLA's CPU backend runs one element after the
other. Where it is known beforehand who picks every row, the gradient can pick as well. This is one
primitive, linear in the rows, that carries both lists and swaps them when transposed: it is closed
under grad, jvp, vmap and any nesting of them.
"""

from functools import cache

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float, Int

from efficient_layers.ops.lowering import current_lowering


def gather_sum(
    x: Float[Array, "n *f"], sources: Int[Array, "a m"], targets: Int[Array, "b n"]
) -> Float[Array, "m *f"]:
    """y[i] = sum_a x[sources[a, i]]; an index of n, the number of rows, adds nothing.

    `targets` says the same from the other side and is what the gradient picks by: row j is in
    y[targets[:, j]], as often as it stands there, and an index of m means no row. That the two
    agree is up to the caller. The reference uses `sources` alone.
    """
    if current_lowering() == "reference":
        return _pick(x, sources, targets)
    return _gather_sum.bind(x, sources, targets)


_gather_sum = Primitive("gather_sum")


def _pick(x, sources, targets):
    rows = lax.GatherDimensionNumbers(
        offset_dims=tuple(range(1, x.ndim)), collapsed_slice_dims=(0,), start_index_map=(0,)
    )
    picked = lax.gather(
        x,
        sources.reshape(-1, 1),
        rows,
        (1, *x.shape[1:]),
        mode=lax.GatherScatterMode.FILL_OR_DROP,
        fill_value=0,
    )
    return picked.reshape(*sources.shape, *x.shape[1:]).sum(0, dtype=x.dtype)


@cache
def _compiled():
    return jax.jit(_gather_sum.bind)


def _abstract(x, sources, targets):
    return jax.core.ShapedArray((sources.shape[1], *x.shape[1:]), x.dtype)


def _jvp(primals, tangents):
    y = _gather_sum.bind(*primals)
    if isinstance(tangents[0], ad.Zero):
        return y, ad.Zero.from_primal_value(y)
    return y, _gather_sum.bind(tangents[0], *primals[1:])


def _transpose(g, x, sources, targets):
    if isinstance(g, ad.Zero):
        return None, None, None
    return _gather_sum.bind(g, targets, sources), None, None


def _batch(operands, axes):
    """Rows alone: the axis joins the features. Indices too: members stand below each other."""
    x, sources, targets = operands
    if axes[1] is None and axes[2] is None:
        y = _gather_sum.bind(jnp.moveaxis(x, axes[0], -1), sources, targets)
        return y, y.ndim - 1
    size = next(o.shape[a] for o, a in zip(operands, axes, strict=True) if a is not None)
    x, sources, targets = (
        jnp.broadcast_to(o, (size, *o.shape)) if a is None else jnp.moveaxis(o, a, 0)
        for o, a in zip(operands, axes, strict=True)
    )
    n, m = x.shape[1], sources.shape[2]
    rows = x.reshape(size * n, *x.shape[2:])
    y = _gather_sum.bind(rows, stacked(sources, n), stacked(targets, m))
    return y.reshape(size, m, *x.shape[2:]), 0


def stacked(indices: Int[Array, "g a m"], n: int) -> Int[Array, "a g*m"]:
    """Indices into g tables of n rows as indices into one of g n rows."""
    g, a, m = indices.shape
    first = n * jnp.arange(g, dtype=indices.dtype)[:, None, None]
    moved = jnp.where(indices >= n, g * n, indices + first)
    return moved.swapaxes(0, 1).reshape(a, g * m)


_gather_sum.def_impl(lambda *operands: _compiled()(*operands))
_gather_sum.def_abstract_eval(_abstract)
ad.primitive_jvps[_gather_sum] = _jvp
ad.primitive_transposes[_gather_sum] = _transpose
batching.primitive_batchers[_gather_sum] = _batch
mlir.register_lowering(_gather_sum, mlir.lower_fun(_pick, multiple_results=False))
