# SPDX-License-Identifier: Apache-2.0
"""Second moments X^T X and means of inputs of layers, for what minimises their outputs' error."""

import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Float

from efficient_layers.compress.edits import module_at
from efficient_layers.compress.observe import Statistic, observe


class Moments(NamedTuple):
    """`count` rows x of X, and `total`, X^T X in float64 (features, features).

    Of a convolution with g groups, where it is asked for, (g, features of a group, the same).
    """

    count: int  # type: ignore[assignment]  # hides tuple.count
    total: Any


def input_moments(
    model: nnx.Module,
    paths: Iterable[str],
    batches: Iterable,
    loss: Callable | None = None,
    *,
    grouped: bool = False,
) -> dict[str, Moments | None]:
    """X^T X of what goes into each module at `paths`, over all calls and `batches`, in eval mode.

    Of a convolution x is a patch in the order of the rows of its kernel: the output is
    X @ kernel.reshape(-1, out) + bias. Of any other module x is the last axis. None stands for a
    convolution with a dilated input, or with groups unless `grouped`, which is no such product. A
    module that is never called is left out. A batch is given to `loss(model, batch)`, else to
    `model(batch)`.

    Products are summed in float32 over a call and in float64 over calls.

    Raises:
      ValueError: `batches` is empty; a moment that is not finite.
    """
    return _summed(_products, model, paths, batches, loss, grouped)


def input_means(
    model: nnx.Module, paths: Iterable[str], batches: Iterable, loss: Callable | None = None
) -> dict[str, Float[np.ndarray, "..."]]:
    """The mean of what `input_moments` takes the products of: (features,) or (g, features).

    Convolutions with a dilated input are left out, too.

    Raises:
      ValueError: `batches` is empty; a mean that is not finite.
    """
    sums = _summed(lambda rows: rows.sum(0), model, paths, batches, loss, grouped=True)
    return {path: s.total / s.count for path, s in sums.items() if s is not None}


def _products(rows: jax.Array) -> jax.Array:
    return jnp.matmul(rows.T, rows, precision="highest")


def _summed(
    form: Statistic,
    model: nnx.Module,
    paths: Iterable[str],
    batches: Iterable,
    loss: Callable | None,
    grouped: bool,
) -> dict[str, Moments | None]:
    """`form` of the rows (n, features) of a call, summed over calls."""
    statistics: dict[str, Statistic] = {}
    found: dict[str, Moments | None] = {}
    for path in paths:
        module = module_at(model, path)
        if not isinstance(module, nnx.Conv):
            statistics[path] = _of_rows(form)
        elif module.input_dilation not in (None, 1, (1, 1)):
            found[path] = None
        elif module.feature_group_count == 1 or grouped:
            statistics[path] = _of_patches(form, module)
        else:
            found[path] = None

    def add(path: str, seen: Moments) -> None:
        before = found.get(path) or Moments(0, np.zeros(()))
        found[path] = Moments(before.count + int(seen.count), before.total + seen.total)

    if not observe(model, statistics, batches, add, loss=loss):
        raise ValueError("Moments of inputs expect at least one batch in data. Got none.")
    for path, moments in found.items():
        if moments is not None and not np.isfinite(moments.total).all():
            raise ValueError(f"Moments of inputs expect finite values. Got NaN or inf into {path}.")
    return found


def patches(conv: nnx.Conv, x: jax.Array) -> jax.Array:
    """(b, *spatial, in) -> (b, *spatial', prod(kernel_size) in): what each output is a product of.

    The convolution is patches(conv, x) @ kernel.reshape(-1, out) + bias.
    """
    size, axes = conv.kernel_size, len(conv.kernel_size)
    strides, dilation = _each(conv.strides, axes), _each(conv.kernel_dilation, axes)
    extents = [(k - 1) * d + 1 for k, d in zip(size, dilation, strict=True)]
    x = _padded(x, conv.padding, extents, strides)
    slices = []
    for taps in itertools.product(*map(range, size)):
        starts = [tap * d for tap, d in zip(taps, dilation, strict=True)]
        ends = [n - e + s + 1 for n, e, s in zip(x.shape[1:-1], extents, starts, strict=True)]
        ends = [x.shape[0], *ends, x.shape[-1]]
        slices.append(lax.slice(x, [0, *starts, 0], ends, [1, *strides, 1]))
    return jnp.concatenate(slices, axis=-1)


def _of_rows(form: Statistic) -> Statistic:
    def moments(x: jax.Array) -> Moments:
        rows = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
        return Moments(rows.shape[0], form(rows))

    return moments


def _of_patches(form: Statistic, conv: nnx.Conv) -> Statistic:
    def rows(image: jax.Array) -> jax.Array:
        found = patches(conv, image[None])
        return found.reshape(-1, found.shape[-1])

    def of_groups(rows: jax.Array) -> jax.Array:
        groups = conv.feature_group_count
        if groups == 1:
            return form(rows)
        taps = math.prod(conv.kernel_size)
        parts = rows.reshape(len(rows), taps, groups, -1).transpose(2, 0, 1, 3)
        return jax.vmap(form)(parts.reshape(groups, len(rows), -1))

    def moments(x: jax.Array) -> Moments:
        x = x.reshape(-1, *x.shape[-len(conv.kernel_size) - 1 :]).astype(jnp.float32)

        # An image at a time: the patches of a batch are prod(kernel_size) times its size.
        def add(total: jax.Array, image: jax.Array) -> tuple[jax.Array, None]:
            return total + of_groups(rows(image)), None

        first = jax.eval_shape(lambda x: of_groups(rows(x[0])), x)
        total, _ = lax.scan(add, jnp.zeros(first.shape, jnp.float32), x)
        count = len(x) * jax.eval_shape(lambda x: rows(x[0]), x).shape[0]
        return Moments(count, total)

    return moments


def _each(value: Any, axes: int) -> tuple[int, ...]:
    return (value or 1,) * axes if value is None or isinstance(value, int) else tuple(value)


def _padded(x: jax.Array, padding: Any, extents: list[int], strides: tuple[int, ...]) -> jax.Array:
    """`x` as `nnx.Conv` pads it, for a convolution without padding."""
    mode = "constant"
    if padding in ("CIRCULAR", "REFLECT"):
        mode = {"CIRCULAR": "wrap", "REFLECT": "reflect"}[padding]
        pads: Any = [((e - 1) // 2, e // 2) for e in extents]
    elif padding == "CAUSAL":
        pads = [(e - 1, 0) for e in extents]
    elif isinstance(padding, str):
        pads = lax.padtype_to_pads(x.shape[1:-1], extents, strides, padding)
    else:
        pairs = (padding,) * len(extents) if isinstance(padding, int) else padding
        pads = [(p, p) if isinstance(p, int) else tuple(p) for p in pairs]
    return jnp.pad(x, [(0, 0), *pads, (0, 0)], mode=mode)
