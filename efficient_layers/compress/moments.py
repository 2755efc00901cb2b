# SPDX-License-Identifier: Apache-2.0
"""Second moments X^T X of the inputs of layers, for what minimises the error of their outputs."""

import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from efficient_layers.compress.edits import module_at
from efficient_layers.compress.observe import Statistic, observe


class Moments(NamedTuple):
    """`count` rows x of X, and `total`, X^T X in float64 (features, features)."""

    count: int
    total: Any


def input_moments(
    model: nnx.Module,
    paths: Iterable[str],
    batches: Iterable,
    loss: Callable | None = None,
) -> dict[str, Moments | None]:
    """X^T X of what goes into each module at `paths`, over all calls and `batches`, in eval mode.

    Of a convolution x is a patch in the order of the rows of its kernel: the output is
    X @ kernel.reshape(-1, out) + bias. Of any other module x is the last axis. None stands for a
    convolution with groups or with a dilated input, which is no such product. A module that is
    never called is left out. A batch is given to `loss(model, batch)`, else to `model(batch)`.

    Products are summed in float32 over a call and in float64 over calls.

    Raises:
      ValueError: `batches` is empty; a moment that is not finite.
    """
    statistics: dict[str, Statistic] = {}
    found: dict[str, Moments | None] = {}
    for path in paths:
        module = module_at(model, path)
        if not isinstance(module, nnx.Conv):
            statistics[path] = _of_rows
        elif module.feature_group_count == 1 and module.input_dilation in (None, 1, (1, 1)):
            statistics[path] = _of_patches(module)
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


def _of_rows(x: jax.Array) -> Moments:
    rows = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
    return Moments(rows.shape[0], jnp.matmul(rows.T, rows, precision="highest"))


def _of_patches(conv: nnx.Conv) -> Statistic:
    def moments(x: jax.Array) -> Moments:
        x = x.reshape(-1, *x.shape[-len(conv.kernel_size) - 1 :]).astype(jnp.float32)
        shape = jax.eval_shape(lambda x: patches(conv, x), x).shape

        # An image at a time: the patches of a batch are prod(kernel_size) times its size.
        def add(total: jax.Array, image: jax.Array) -> tuple[jax.Array, None]:
            rows = patches(conv, image[None]).reshape(-1, shape[-1])
            return total + jnp.matmul(rows.T, rows, precision="highest"), None

        total, _ = lax.scan(add, jnp.zeros((shape[-1], shape[-1]), jnp.float32), x)
        return Moments(math.prod(shape[:-1]), total)

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
