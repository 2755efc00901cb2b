# SPDX-License-Identifier: Apache-2.0
"""The same model without this library's layers: what plain `nnx.Conv` and `nnx.BatchNorm` cost.

Every `ConvBNAct`, `Conv` and `BatchNorm` found in the module tree is replaced by one made of the
flax classes, with the same settings and weights; activations become those of `jax.nn`. All else
(the order of layers, the linear layers, pooling) stays. Nothing of `efficient_layers.ops` runs.
"""

import inspect
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from efficient_layers import layers
from efficient_layers.evidence.attention_side import PlainSelfAttention, SelfAttention


class PlainConvBNAct(nnx.Module):
    """act(bn(conv(x))) of flax's own layers, one after the other."""

    def __init__(self, conv: nnx.Conv, bn: nnx.BatchNorm, act: Callable | None) -> None:
        self.conv, self.bn, self.act = conv, bn, act

    def __call__(self, x: jax.Array, *, out: dict[str, jax.Array] | None = None) -> jax.Array:
        y = self.bn(self.conv(x))
        return y if self.act is None else self.act(y)


def plain(module: Any) -> Any:
    """`module` with flax's layers in place of ours; containers of layers change in place."""
    if isinstance(module, layers.ConvBNAct):
        return PlainConvBNAct(plain(module.conv), plain(module.bn), _plain_act(module.act))
    if isinstance(module, SelfAttention):
        return PlainSelfAttention(module.causal)
    if isinstance(module, layers.Conv):
        return _rebuilt(nnx.Conv, module)
    if isinstance(module, layers.BatchNorm):
        return _rebuilt(nnx.BatchNorm, module)
    if not isinstance(module, nnx.Module):  # a Param or a static value
        return module
    parent: Any = module
    for name, child in list(nnx.iter_children(module)):
        if isinstance(name, int):
            parent[name] = plain(child)
        else:
            setattr(parent, str(name), plain(child))
    return parent


def _rebuilt(flax_class: Any, layer: nnx.Module) -> nnx.Module:
    """An instance of `flax_class` with the settings, weights and statistics of `layer`."""
    names = set(inspect.signature(flax_class.__init__).parameters) - {"conv_general_dilated"}
    settings: dict[str, Any] = {key: value for key, value in vars(layer).items() if key in names}
    rebuilt = flax_class(**settings, rngs=nnx.Rngs(0))
    nnx.update(rebuilt, nnx.state(layer))
    return rebuilt


def _plain_act(act: Callable | None) -> Callable | None:
    return None if act is None else getattr(jax.nn, getattr(act, "__name__", ""), act)
