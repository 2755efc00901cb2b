# SPDX-License-Identifier: Apache-2.0
"""What takes the place of a layer once its ranks are chosen, and which layers are left alone."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from flax import nnx

from efficient_layers import layers
from efficient_layers.compress.edits import replace
from efficient_layers.compress.rank_choice import Choice, Ranks
from efficient_layers.compress.technique import Change, Edit

# A subclass may do more with its kernel than multiply by it (StandardizedConv): these types alone.
_CONVS = (nnx.Conv, layers.Conv)
_LAYERS: Mapping[str, Any] = {
    "svd": layers.FactorizedConv,
    "spatial": layers.SpatialSeparableConv,
    "tucker2": layers.TuckerConv,
    "cp": layers.CPConv,
}


def takes(module: nnx.Module) -> bool:
    """Whether it is a linear layer or a convolution, of whatever shape."""
    return isinstance(module, nnx.Linear) or type(module) in _CONVS


def refused(path: str, module: Any) -> str:
    """Why the layer is left as it is, or ""."""
    shape = tuple(module.kernel.shape)
    if not path:
        return "the model itself: put it in a Sequential"
    if isinstance(module, nnx.Linear):
        return "" if len(shape) == 2 else f"stacked: {shape}"
    groups = module.feature_group_count
    if groups > 1:
        return "depthwise" if shape[-2] == 1 else f"{groups} groups"
    if len(shape) != 4:
        return f"a kernel of {shape}, not of two dimensions"
    if module.mask is not None or module.input_dilation not in (None, 1, (1, 1)):
        return "a convolution with a mask or a dilated input"
    return ""


def strides_of(module: Any) -> tuple[int, int]:
    """Of a convolution; (1, 1) of a linear layer."""
    strides = getattr(module, "strides", 1) or 1
    return (strides, strides) if isinstance(strides, int) else tuple(strides)


def layer_of(module: Any, choice: Choice, gram: np.ndarray | None) -> Any:
    """The layer of `module`'s weights at these ranks; `gram` is X^T X of its inputs, or None."""
    if isinstance(module, nnx.Linear):
        return layers.LowRankLinear.from_linear(module, rank=choice.ranks[0], gram=gram)
    given: Any = choice.ranks if len(choice.ranks) == 2 else choice.ranks[0]
    more = {"gram": gram} if choice.method == "svd" else {}
    return _LAYERS[choice.method].from_conv(module, given, **more)


def edit_of(path: str, module: Any, choice: Choice) -> Edit:
    """The edit that puts a layer of these ranks in `module`'s place."""
    given: dict[str, Any] = {
        "in_features": module.in_features,
        "out_features": module.out_features,
        "use_bias": module.bias is not None,
        "dtype": module.dtype,
        "param_dtype": module.param_dtype,
    }
    if isinstance(module, nnx.Linear):
        return replace(path, "LowRankLinear", **given, rank=choice.ranks[0])
    given["kernel_size"], given["strides"] = module.kernel_size, strides_of(module)
    given["kernel_dilation"], given["padding"] = module.kernel_dilation or 1, module.padding
    given |= {"ranks": choice.ranks} if len(choice.ranks) == 2 else {"rank": choice.ranks[0]}
    return replace(path, _LAYERS[choice.method].__name__, **given)


def grown(options: Ranks, choice: Choice) -> str:
    """Why factors of these ranks are refused, or ""."""
    whole = options.kernel.size
    if choice.weights >= whole:
        first = int(np.argmax(options.weights >= whole)) + 1
        below = f": it pays below rank {first}" if len(choice.ranks) == 1 else ""
        return (
            f"{shown(choice.ranks)} would take {choice.weights:,} weights in place of {whole:,}"
            f"{below}"
        )
    if choice.macs >= whole:  # the first factor works before the strides
        return (
            f"{shown(choice.ranks)} would take {choice.macs:,.0f} MACs for each position in place "
            f"of {whole:,}"
        )
    return ""


def shown(ranks: tuple[int, ...]) -> str:
    """ "rank 3", "ranks (3, 4)"."""
    return f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {numbers(ranks)}"


def numbers(ranks: Iterable[int]) -> str:
    """ "3", "(3, 4)"."""
    digits = [str(int(rank)) for rank in ranks]
    return digits[0] if len(digits) == 1 else f"({', '.join(digits)})"


def factorised(path: str, layer: layers.LowRankLinear) -> Change:
    """A `LowRankLinear` as two `nnx.Linear`s in a `FactorizedLinear`, which can be quantised."""
    names = ("in_features", "out_features", "rank", "use_bias", "dtype", "param_dtype")
    edit = replace(path, "FactorizedLinear", **{name: getattr(layer, name) for name in names})
    values = {f"{path}/reduce/kernel": layer.u[...], f"{path}/expand/kernel": layer.v[...]}
    if layer.bias is not None:
        values[f"{path}/expand/bias"] = layer.bias[...]
    return Change(path, "two linear layers", (edit,), values)
