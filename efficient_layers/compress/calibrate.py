# SPDX-License-Identifier: Apache-2.0
"""What goes into the layers of a model: ranges for static int8 activations, order of calls."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from efficient_layers.compress.entropy import BINS, threshold
from efficient_layers.compress.hooks import Hook, hooked
from efficient_layers.compress.observe import Statistic, observe
from efficient_layers.measure.view import pure
from efficient_layers.ops.quantize import fake_quantize, scale_and_zero_point

Clip = Literal["minmax", "percentile", "mse", "entropy"]
CLIPS = get_args(Clip)
# Shares of the observed range that "mse" tries.
RATIOS = np.linspace(0.3, 1.0, 29)


class Range(NamedTuple):
    """Of a layer's input: its ends, and the mean of its magnitude (for learned steps)."""

    low: float
    high: float
    magnitude: float


def input_ranges(
    model: nnx.Module,
    paths: Iterable[str],
    batches: Iterable,
    *,
    loss: Callable | None,
    clip: Clip = "minmax",
    percentile: float = 99.99,
    symmetric: bool = False,
) -> dict[str, Range]:
    """The range of the input of each module at `paths`, over all `batches`, in eval mode.

    "minmax": the least and the greatest number seen. "percentile": of each batch, this percentile
    at both ends, their mean over the batches. "mse": the min-max range times that of `RATIOS` whose
    int8 codes have the least squared error, over all numbers. "entropy": cut where the histogram of
    magnitudes, over all numbers, loses least on 128 levels (`entropy.threshold`). A layer that was
    not called is left out. A batch is given to `loss(model, batch)`, else to `model(batch)`.

    Reference: Nagel et al., *A White Paper on Neural Network Quantization* (arXiv 2106.08295),
    section 3.1; Wu et al., *Integer Quantization for Deep Learning Inference* (arXiv 2004.09602),
    section 5 (percentiles of 99.9 to 99.9999).

    Raises:
      ValueError: `batches` is empty; a number that is not finite.
    """
    batches = list(batches)
    if not batches:
        raise ValueError("Calibration expects at least one batch in data. Got none.")
    ends = (100 - percentile, percentile) if clip == "percentile" else (0, 100)
    seen = _stacked(model, dict.fromkeys(paths, partial(_summary, ends)), batches, loss)
    ranges = {}
    for path, rows in seen.items():
        if not np.isfinite(rows).all():
            raise ValueError(f"Calibration expects finite values. Got NaN or inf into {path}.")
        low, high, magnitude = rows.mean(0)
        if clip != "percentile":
            low, high = rows[:, 0].min(), rows[:, 1].max()
        ranges[path] = Range(float(low), float(high), float(magnitude))
    if clip == "entropy":
        counts = {path: partial(_histogram, r) for path, r in ranges.items()}
        for path, rows in _stacked(model, counts, batches, loss).items():
            ranges[path] = _cut(ranges[path], rows.sum(0))
        return ranges
    if clip != "mse":
        return ranges
    errors = {path: partial(_errors, r, symmetric) for path, r in ranges.items()}
    for path, rows in _stacked(model, errors, batches, loss).items():
        ratio = float(RATIOS[int(rows.sum(0).argmin())])
        whole = ranges[path]
        ranges[path] = Range(whole.low * ratio, whole.high * ratio, whole.magnitude)
    return ranges


def call_order(model: nnx.Module, paths: Iterable[str], example: Any) -> list[str]:
    """`paths` in the order in which the modules are first called; those never called are left out.

    Nothing is computed: `model` is traced on `example`.
    """
    order: dict[str, None] = {}

    def noting(path: str) -> Hook:
        def hook(call: Callable, *args: Any, **kwargs: Any) -> Any:
            order.setdefault(path)
            return call(*args, **kwargs)

        return hook

    function = pure(hooked(model, {path: noting(path) for path in paths}), example)
    jax.eval_shape(function.apply, function.state, function.arrays)
    return list(order)


def _summary(ends: tuple[float, float], x: jax.Array) -> jax.Array:
    x = x.astype(jnp.float32)
    low, high = (x.min(), x.max()) if ends == (0, 100) else jnp.percentile(x, jnp.array(ends))
    return jnp.stack([low, high, jnp.abs(x).mean()])


def _errors(seen: Range, symmetric: bool, x: jax.Array) -> jax.Array:
    """Squared error of int8 codes of `x`, for each of `RATIOS`."""
    x = x.astype(jnp.float32)

    def error(ratio: jax.Array) -> jax.Array:
        low, high = (jnp.asarray(end, jnp.float32) * ratio for end in (seen.low, seen.high))
        ends = low.reshape((1,) * x.ndim), high.reshape((1,) * x.ndim)
        scale, zero_point = scale_and_zero_point(*ends, bits=8, symmetric=symmetric)
        return jnp.square(fake_quantize(x, scale, zero_point, bits=8) - x).sum()

    return jax.lax.map(error, jnp.asarray(RATIOS, jnp.float32))


def _histogram(seen: Range, x: jax.Array) -> jax.Array:
    """Of |x|, in `BINS` bins up to the greatest seen; zeros, which are exact, are left out."""
    size = jnp.abs(x.astype(jnp.float32)).ravel()
    place = (size * (BINS / (max(-seen.low, seen.high) or 1.0))).astype(jnp.int32)
    return jnp.bincount(jnp.minimum(place, BINS - 1), (size > 0).astype(jnp.int32), length=BINS)


def _cut(whole: Range, counts: np.ndarray) -> Range:
    if not counts.any():
        return whole
    top = threshold(counts, max(-whole.low, whole.high) / BINS)
    return Range(max(whole.low, -top), min(whole.high, top), whole.magnitude)


def _stacked(
    model: nnx.Module,
    statistics: Mapping[str, Statistic],
    batches: list,
    loss: Callable | None,
) -> dict[str, np.ndarray]:
    """Path -> the statistic of the module's input, (calls, ...)."""
    seen: dict[str, list[np.ndarray]] = {}

    def keep(path: str, value: np.ndarray) -> None:
        seen.setdefault(path, []).append(value)

    observe(model, statistics, batches, keep, loss=loss)
    return {path: np.stack(rows) for path, rows in seen.items()}
