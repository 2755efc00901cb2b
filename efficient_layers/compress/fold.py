# SPDX-License-Identifier: Apache-2.0
"""Batch normalisation folded into the convolution or linear layer before it."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import jax
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from efficient_layers import layers
from efficient_layers.compress.edits import replace
from efficient_layers.compress.hooks import hooked
from efficient_layers.compress.technique import Change, Context, Kind, Skip, Technique
from efficient_layers.measure.view import pure
from efficient_layers.models.paths import modules
from efficient_layers.ops.fold_batch_norm import fold_batch_norm

# A subclass may do more with its kernel than multiply by it (StandardizedConv): these types alone.
_FOLDED = (nnx.Conv, layers.Conv, layers.DepthwiseConv, nnx.Linear)


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
        feeding = feeders(context.model, context.example)
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


def feeders(model: nnx.Module, example: Any) -> dict[str, str]:
    """Path of a BatchNorm -> path of the layer whose output it gets, and nobody else.

    Both are called once. Found in the jaxpr, where outputs and inputs carry the modules' names.
    """
    hooks: dict[str, Any] = {}
    for path, module in modules(model):
        if isinstance(module, nnx.BatchNorm):
            hooks[path] = _named_input(f"{_IN}{path}")
        elif type(module) in _FOLDED:
            hooks[path] = _named_output(f"{_OUT}{path}")
    function = pure(hooked(model, hooks), example)
    traced = jax.make_jaxpr(function.apply)(function.state, function.arrays)
    calls: Counter[str] = Counter()
    pairs = {}
    for jaxpr in _jaxprs(traced.jaxpr):
        users = Counter(id(v) for eqn in jaxpr.eqns for v in eqn.invars)
        users.update(id(v) for v in jaxpr.outvars)
        made = {}
        for eqn in jaxpr.eqns:
            name = eqn.params.get("name", "") if eqn.primitive.name == "name" else ""
            if name.startswith((_IN, _OUT)):
                calls[name] += 1
            if name.startswith(_OUT):
                made[id(eqn.outvars[0])] = name
            source = made.get(id(eqn.invars[0])) if name.startswith(_IN) else None
            if source is not None and users[id(eqn.invars[0])] == 1:
                pairs[name] = source
    once = {norm: layer for norm, layer in pairs.items() if calls[norm] == calls[layer] == 1}
    return {norm.removeprefix(_IN): layer.removeprefix(_OUT) for norm, layer in once.items()}


_IN, _OUT = "el.compress.in:", "el.compress.out:"


def _named_input(name: str) -> Any:
    return lambda call, x, *rest, **more: call(checkpoint_name(x, name), *rest, **more)


def _named_output(name: str) -> Any:
    return lambda call, *args, **more: checkpoint_name(call(*args, **more), name)


def _jaxprs(jaxpr: Any) -> Iterator[Any]:
    yield jaxpr
    for eqn in jaxpr.eqns:
        for value in eqn.params.values():
            for item in value if isinstance(value, list | tuple) else (value,):
                inner = getattr(item, "jaxpr", item)
                if hasattr(inner, "eqns"):
                    yield from _jaxprs(inner)


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
    mean = norm.mean[...] if layer.bias is None else norm.mean[...] - layer.bias[...]
    scale, bias = (None if v is None else v[...] for v in (norm.scale, norm.bias))
    kernel, shift = _fold(layer.kernel[...], mean, norm.var[...], scale, bias, epsilon=norm.epsilon)
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


_fold = jax.jit(fold_batch_norm, static_argnames=("epsilon",))
_CONV = ("kernel_size", "strides", "padding", "kernel_dilation", "feature_group_count")
