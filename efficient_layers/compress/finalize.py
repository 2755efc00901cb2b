# SPDX-License-Identifier: Apache-2.0
"""The end of training a compressed model: what was simulated becomes what is stored."""

import dataclasses
from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import numpy as np
from flax import nnx

from efficient_layers import layers
from efficient_layers.compress.apply import apply
from efficient_layers.compress.edits import replace, values_of
from efficient_layers.compress.technique import Change, Context, Technique
from efficient_layers.layers.quant_spec import Codes


@dataclasses.dataclass(frozen=True)
class Finalize(Technique):
    """Layers with fake-quantised float weights become their twins that store integers.

    `QuantLinear` -> `IntLinear`, `QuantConv` -> `IntConv`, `QuantEmbedding` -> `IntEmbedding`. In
    eval mode no output changes beyond rounding (1e-5).

    Raises (from `plan`):
      ValueError: static activations whose range was never seen; weights that are not finite.
    """

    path: str = "**"

    def plan(self, context: Context) -> Iterable[Change]:
        for path, module in context.matched:
            if type(module) in TWINS:
                yield to_integers(path, module, f"{type(module).__name__} stored as integers")


TWINS: dict[type, type] = {
    layers.QuantLinear: layers.IntLinear,
    layers.QuantConv: layers.IntConv,
    layers.QuantEmbedding: layers.IntEmbedding,
}


def finalize(model: nnx.Module) -> nnx.Module:
    """A copy of `model` with every fake-quantised layer stored as integers.

    `apply(model, [Finalize()])` does the same and gives the log, with the edits.
    """
    return apply(model, [Finalize()])[0]


def to_integers(path: str, layer: Any, why: str, weight: Codes | None = None) -> Change:
    """The change that puts a fake-quantised layer's integer twin at `path`.

    `weight`: codes of a linear layer or convolution that are not the nearest ones.
    """
    settings: dict[str, Any] = {"spec": layer.spec}
    if isinstance(layer, layers.QuantEmbedding):
        settings = {"bits": layer.spec.bits}
    edit = replace(path, TWINS[type(layer)].__name__, **sizes_of(layer), **settings)
    _check(path, layer)
    found = _integers(*nnx.split(layer), weight)
    return Change(path, why, (edit,), {f"{path}/{name}": v for name, v in found.items()})


@partial(jax.jit, static_argnums=0)  # one program for all layers of a shape
def _integers(graphdef: nnx.GraphDef, state: nnx.State, weight: Codes | None) -> dict[str, Any]:
    layer = nnx.merge(graphdef, state, copy=True)
    return values_of("", layer.convert() if weight is None else layer.convert(weight))


def _check(path: str, layer: Any) -> None:
    """What `convert` refuses where it is not traced."""
    weight = layer.embedding if isinstance(layer, layers.QuantEmbedding) else layer.kernel
    if not np.isfinite(np.asarray(weight[...], np.float32)).all():
        raise ValueError(f"Integers of {path} need finite weights. Got NaN or inf.")
    if layer.spec.activations == "static":
        try:
            layer.input_scale()
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def sizes_of(layer: Any) -> dict[str, Any]:
    """The constructor's arguments of a quantised layer, without its settings."""
    names: tuple[str, ...] = ("in_features", "out_features", "use_bias")
    if isinstance(layer, layers.QuantEmbedding):
        names = ("num_embeddings", "features")
    elif isinstance(layer, layers.QuantConv):
        names += ("kernel_size", "strides", "padding", "kernel_dilation", "feature_group_count")
    return {name: getattr(layer, name) for name in (*names, "dtype", "param_dtype")}
