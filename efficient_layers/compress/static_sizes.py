# SPDX-License-Identifier: Apache-2.0
"""Integers that modules keep beside their arrays (`out_features`, `num_heads`), set right anew.

A table of known modules gives each such integer from the shapes of the module's own arrays. An
unknown module that owns one cannot be set right, and `unknown` names it.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from flax import nnx

from efficient_layers import layers
from efficient_layers.layers.attention import Attention
from efficient_layers.layers.low_rank_conv import LowRankConv
from efficient_layers.models.pqrnn import QRNN

Sizes = dict[str, Any]

_SIZE = re.compile(r"(features|channels|heads|head_dim|groups|width|hidden|units|rank|dim)s?$")


def sizes(module: nnx.Module, inputs: int | None) -> Mapping[str, Any] | None:
    """Attribute -> value of a module whose arrays were resized; None: a module not known here.

    Args:
      module: its children are set right already.
      inputs: how many channels it reads, for a convolution.
    """
    for kinds, function in _TABLE:
        if isinstance(module, kinds):
            return function(module, inputs)
    return None


def unknown(module: nnx.Module, changed: set[int]) -> str | None:
    """The size attribute of a module of no known kind that equals one of the sizes `changed`."""
    if any(isinstance(module, kinds) for kinds, _ in _TABLE):
        return None
    for name, value in vars(module).items():
        if type(value) is int and value in changed and _SIZE.search(name):
            return f"{type(module).__name__}.{name}={value}"
    return None


def _linear(module: Any, _: int | None) -> Sizes:
    ins, outs = module.kernel.shape
    return {"in_features": ins, "out_features": outs}


def _conv(module: Any, inputs: int | None) -> Sizes:
    *_, ins, outs = module.kernel.shape
    inputs = module.in_features if inputs is None else inputs
    return {
        "in_features": inputs,
        "out_features": outs,
        "feature_group_count": inputs // ins,
        "kernel_shape": tuple(module.kernel.shape),
    }


def _norm(module: Any, _: int | None) -> Sizes:
    for name in ("scale", "bias", "mean"):
        variable = getattr(module, name, None)
        if variable is not None:
            return {"num_features": variable.shape[-1]}
    return {}


def _group_norm(module: Any, _: int | None) -> Sizes:
    features = _norm(module, None)
    if not features:
        return {}
    size = module.num_features // module.num_groups  # whole groups are removed
    return {**features, "num_groups": features["num_features"] // size}


def _embed(module: Any, _: int | None) -> Sizes:
    return {"features": module.embedding.shape[-1]}


def _attention(module: Any, _: int | None) -> Sizes:
    dim = module.head_dim
    heads = {"num_heads": module.query, "num_kv_heads": module.key}
    known = {
        name: linear.out_features // dim for name, linear in heads.items() if hasattr(module, name)
    }
    return {"in_features": module.query.in_features, **known}


def _squeeze_excite(module: Any, _: int | None) -> Sizes:
    return {"in_features": module.reduce.in_features, "rd_features": module.reduce.out_features}


def _inverted_residual(module: Any, _: int | None) -> Sizes:
    squeezed = {} if module.se is None else {"se_features": module.se.rd_features}
    return {"hidden_features": module.depthwise.conv.out_features, **squeezed}


def _gated(module: Any, _: int | None) -> Sizes:
    down = module.down
    hidden = {"hidden_features": down.in_features, "out_features": down.out_features}
    return {"in_features": module.gate_up.in_features, **hidden}


def _fused(module: Any, _: int | None) -> Sizes:
    return {"hidden_features": module.project.conv.in_features} if module.expand else {}


def _low_rank(module: Any, _: int | None) -> Sizes:
    (ins, rank), outs = module.u.shape, module.v.shape[-1]
    return {"in_features": ins, "rank": rank, "out_features": outs}


def _factorized(module: Any, _: int | None) -> Sizes:
    reduce, expand = module.reduce, module.expand
    ends = {"in_features": reduce.in_features, "out_features": expand.out_features}
    return {**ends, "rank": reduce.out_features}


def _low_rank_conv(module: Any, _: int | None) -> Sizes:
    first, last = (getattr(module, module.parts[place]) for place in (0, -1))
    if hasattr(module, "ranks"):
        return {"ranks": (first.out_features, last.in_features)}
    return {"rank": first.out_features}


def _projected_heads(module: Any, _: int | None) -> Sizes:
    heads = module.query.out_features // module.head_dim
    return {"in_features": module.query.in_features, "num_heads": heads}


def _gated_heads(module: Any, _: int | None) -> Sizes:
    rank = {"decay_rank": module.decay_down.out_features}
    return {**_projected_heads(module, None), **rank}


def _linformer(module: Any, _: int | None) -> Sizes:
    return {**_projected_heads(module, None), "rank": module.key_mix.shape[1]}


def _projection(module: Any, _: int | None) -> Sizes:
    return {"features": module.project.out_features}


def _qrnn(module: Any, _: int | None) -> Sizes:
    return {"features": module.gates.out_features // 3}


def _lstm(module: Any, _: int | None) -> Sizes:
    hidden, inputs = module.weight_hh_l0.shape[1], module.weight_ih_l0.shape[1]
    return {"in_features": inputs, "hidden_features": hidden}


def _min_gru(module: Any, _: int | None) -> Sizes:
    gate = module.gate
    return {"in_features": gate.in_features, "hidden_features": gate.out_features}


def _ghost(module: Any, _: int | None) -> Sizes:
    cheap = module.cheap.conv
    return {"out_features": module.primary.conv.out_features + cheap.out_features}


def _ghost_bottleneck(module: Any, _: int | None) -> Sizes:
    return {} if module.se is None else {"se_features": module.se.rd_features}


def _shuffle(module: Any, _: int | None) -> Sizes:
    if module.shortcut_depthwise is None:
        return {"in_features": 2 * module.expand.conv.in_features}
    return {"in_features": module.expand.conv.in_features}


_TABLE: tuple[tuple[Any, Callable[[Any, int | None], Mapping[str, Any]]], ...] = (
    (nnx.Linear, _linear),
    (nnx.Conv, _conv),
    ((nnx.GroupNorm, layers.GroupNorm), _group_norm),
    ((nnx.BatchNorm, nnx.LayerNorm, nnx.RMSNorm, layers.RMSNorm), _norm),
    ((nnx.Embed, layers.Embedding), _embed),
    (layers.GatedLinearUnit, _gated),
    (layers.LowRankLinear, _low_rank),
    (layers.FactorizedLinear, _factorized),
    (LowRankConv, _low_rank_conv),
    (layers.FusedMBConv, _fused),
    (Attention, _attention),
    (layers.GatedLinearAttention, _gated_heads),
    (layers.Linformer, _linformer),
    ((layers.DeltaNet, layers.LinearAttention), _projected_heads),
    (layers.RandomProjectionEmbedding, _projection),
    (QRNN, _qrnn),
    ((layers.LSTM, layers.GRU), _lstm),
    (layers.MinGRU, _min_gru),
    (layers.GhostModule, _ghost),
    (layers.GhostBottleneck, _ghost_bottleneck),
    (layers.ShuffleUnit, _shuffle),
    (layers.SqueezeExcite, _squeeze_excite),
    (layers.InvertedResidual, _inverted_residual),
)
