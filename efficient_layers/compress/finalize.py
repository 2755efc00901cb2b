# SPDX-License-Identifier: Apache-2.0
"""The end of training a compressed model: what was simulated becomes what is stored."""

import dataclasses
from collections.abc import Iterable

from flax import nnx

from efficient_layers import layers
from efficient_layers.compress.apply import apply
from efficient_layers.compress.edits import replace, values_of
from efficient_layers.compress.technique import Change, Context, Technique


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
            if isinstance(module, FAKE):
                yield to_integers(path, module, f"{type(module).__name__} stored as integers")


FAKE = (layers.QuantLinear, layers.QuantConv, layers.QuantEmbedding)


def finalize(model: nnx.Module) -> nnx.Module:
    """A copy of `model` with every fake-quantised layer stored as integers.

    `apply(model, [Finalize()])` does the same and gives the log, with the edits.
    """
    return apply(model, [Finalize()])[0]


def to_integers(path: str, layer: nnx.Module, why: str) -> Change:
    """The change that puts a fake-quantised layer's integer twin at `path`."""
    if isinstance(layer, layers.QuantEmbedding):
        twin, sizes = "IntEmbedding", ("num_embeddings", "features")
        settings = {"bits": layer.spec.bits}
    else:
        linear = isinstance(layer, layers.QuantLinear)
        twin, sizes = ("IntLinear", LINEAR) if linear else ("IntConv", CONV)
        settings = {"spec": layer.spec}
    kept = {name: getattr(layer, name) for name in (*sizes, "dtype", "param_dtype")}
    edit = replace(path, twin, **kept, **settings)
    return Change(path, why, (edit,), values_of(path, layer.convert()))


LINEAR = ("in_features", "out_features", "use_bias")
CONV = (
    *("in_features", "out_features", "kernel_size", "strides", "padding"),
    *("kernel_dilation", "feature_group_count", "use_bias"),
)
