# SPDX-License-Identifier: Apache-2.0
"""Batch normalisation folded into the convolution or linear layer before it."""

import dataclasses
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np
from flax import nnx

from efficient_layers.compress.edits import replace
from efficient_layers.compress.feeders import LAYERS, feeders
from efficient_layers.compress.technique import Change, Context, Kind, Skip, Technique
from efficient_layers.models.paths import modules


@dataclasses.dataclass(frozen=True)
class FoldBatchNorm(Technique):
    """BatchNorm(x W + b) = x W' + b' with W' = W g, b' = (b - mean) g + beta.

    g = gamma / sqrt(var + epsilon). Exact in eval mode, up to rounding; no batch statistics are
    left to train. `path` matches the BatchNorms. Which layer feeds one is found by tracing the
    model on `example`: its input has to be the output of one convolution or linear layer, used
    nowhere else, both of them called once. The layer gets a bias, the BatchNorm becomes an
    `Identity`.

    Reference: Jacob et al., *Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference* (arXiv 1712.05877), section 3.2, equation 14.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"example"})

    path: str = "**"
    type: Kind = dataclasses.field(default="BatchNorm", kw_only=True)

    def plan(self, context: Context) -> Iterable[Change | Skip]:
        feeding = _pairs(context.model, context.example)
        known = dict(modules(context.model))
        for path, norm in context.matched:
            if not isinstance(norm, nnx.BatchNorm):
                continue
            source = feeding.get(path)
            if source is None:
                yield Skip(path, "its input is not one layer's output that nothing else uses")
            elif reason := _refused(known[source], norm):
                yield Skip(path, f"{source}: {reason}")
            else:
                yield _folded(path, norm, source, known[source])


def _pairs(model: nnx.Module, example: Any) -> dict[str, str]:
    """Path of a BatchNorm -> path of the layer whose output it gets, and nobody else."""
    known = dict(modules(model))
    pairs = {}
    for source, output in feeders(model, example).items():
        if type(known[source]) in LAYERS and not output.elsewhere and len(output.ways) == 1:
            (way,) = output.ways
            if isinstance(known[way.consumer], nnx.BatchNorm) and not way.between:
                pairs[way.consumer] = source
    return pairs


def _refused(layer: Any, norm: nnx.BatchNorm) -> str:
    """Why the pair cannot be folded, or ""."""
    if norm.axis not in (-1, layer.kernel.ndim - 1):
        return f"normalised along axis {norm.axis}, not along the channels"
    if isinstance(layer, nnx.Linear):
        return "" if layer.kernel.ndim == 2 else f"stacked: {layer.kernel.shape}"
    if layer.mask is not None or layer.input_dilation not in (None, 1, (1, 1)):
        return "a convolution with a mask or a dilated input"
    return ""


def _folded(path: str, norm: nnx.BatchNorm, source: str, layer: Any) -> Change:
    kernel, shift = _fold(layer, norm)
    types = {"dtype": layer.dtype, "param_dtype": layer.param_dtype}
    sizes = {"in_features": layer.in_features, "out_features": layer.out_features}
    if isinstance(layer, nnx.Linear):
        name, settings = "nnx.Linear", {}
    else:
        name, settings = "Conv", {key: getattr(layer, key) for key in _CONV}
    edits = (
        replace(source, name, **sizes, **settings, use_bias=True, **types),
        replace(path, "Identity"),
    )
    values = {f"{source}/kernel": kernel, f"{source}/bias": shift}
    return Change(path, f"folded into {source}", edits, values)


def _fold(layer: Any, norm: nnx.BatchNorm) -> tuple[np.ndarray, np.ndarray]:
    """`ops.fold_batch_norm` in NumPy: what is done once an array is not worth compiling."""

    def array(variable: Any, missing: float) -> np.ndarray:
        return np.asarray(missing if variable is None else variable[...], np.float32)

    gain = array(norm.scale, 1) / np.sqrt(array(norm.var, 1) + np.float32(norm.epsilon))
    shift = array(norm.bias, 0) - (array(norm.mean, 0) - array(layer.bias, 0)) * gain
    return array(layer.kernel, 1) * gain, shift


_CONV = ("kernel_size", "strides", "padding", "kernel_dilation", "feature_group_count")
