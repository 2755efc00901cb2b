# SPDX-License-Identifier: Apache-2.0
"""Layers of a family exchanged for others of `el.layers`, by path: variants without forks.

    create("vit_tiny_patch16_224", swap={"blocks/*/attention": "LinearAttention"})
    create("mobilenet_v2", swap={"**/bn": {"layer": "GroupNorm", "num_groups": 8}})

The new layer gets the old one's sizes and, of its settings, those that it knows too.
"""

import inspect
from collections.abc import Mapping
from typing import Any, Unpack, get_args, get_origin

from flax import nnx

from efficient_layers import layers
from efficient_layers.models.fields import nearest
from efficient_layers.models.paths import modules, pattern, put

Choice = str | Mapping[str, Any]

_CONV = ("in_features", "out_features", "kernel_size", "strides")
_CONV_SETTINGS = ("padding", "kernel_dilation", "feature_group_count", "use_bias")
_ATTENTION_SETTINGS = ("num_kv_heads", "head_dim", "causal", "position", "qk_norm", "use_bias")
# Type of the old layer -> attributes that are sizes, attributes that are settings.
_KINDS: Mapping[type, tuple[tuple[str, ...], tuple[str, ...]]] = {
    nnx.Conv: (_CONV, _CONV_SETTINGS),
    nnx.Linear: (("in_features", "out_features"), ("use_bias",)),
    nnx.BatchNorm: (("num_features",), ()),
    nnx.LayerNorm: (("num_features",), ("epsilon",)),
    layers.RMSNorm: (("num_features",), ("epsilon",)),
    layers.MultiHeadAttention: (("in_features", "num_heads"), _ATTENTION_SETTINGS),
    layers.GroupedQueryAttention: (("in_features", "num_heads"), _ATTENTION_SETTINGS),
}


def swap_layers(model: nnx.Module, choices: Mapping[str, Choice], *, rngs: nnx.Rngs) -> None:
    """Exchanges modules of `model` in place; the first glob that matches a path wins.

    Args:
      choices: glob on paths -> name of a layer, or {"layer": name, **arguments of its constructor}.

    Raises:
      ValueError: a glob matches nothing; no such layer; a module whose sizes are not known here.
      TypeError: the layer has no such argument.
    """
    unused = set(choices)
    for path, module in list(modules(model)):
        glob = next((glob for glob in choices if pattern(glob).fullmatch(path)), None)
        if glob is not None:
            unused.discard(glob)
            put(model, path, _made(path, module, choices[glob], rngs))
    if unused:
        known = sorted({path for path, _ in modules(model)})
        raise ValueError(f"swap: no module matches {sorted(unused)}. Modules: {', '.join(known)}.")


def make_layer(choice: Choice, *sizes: Any, rngs: nnx.Rngs, **settings: Any) -> nnx.Module:
    """A layer of `el.layers` by name. Of `settings` it gets those that it knows.

    >>> make_layer("LinearAttention", 8, 2, causal=True, rngs=nnx.Rngs(0)).num_heads
    2

    Raises:
      ValueError: no such layer.
      TypeError: an argument in `choice` that it does not have.
    """
    given = {"layer": choice} if isinstance(choice, str) else dict(choice)
    name = given.pop("layer", "")
    layer: Any = getattr(layers, name, None)
    if name not in layers.__all__ or not callable(layer):
        raise ValueError(f"el.layers has no layer {name!r}. {nearest(name, layers.__all__)}")
    known, free = arguments(layer)
    fitting = {key: value for key, value in settings.items() if key in known}
    for key in given:
        if key not in known and not free:
            raise TypeError(f"{name} has no argument {key!r}. {nearest(key, known)}")
    return layer(*sizes, **{**fitting, **given}, rngs=rngs)


def arguments(layer: Any) -> tuple[dict[str, Any], bool]:
    """A layer's arguments by name, `**options: Unpack[...]` included; whether it takes any other.

    >>> sorted(arguments(layers.MultiQueryAttention)[0])[:3]
    ['causal', 'dropout_rate', 'dtype']
    """
    # Of a module, `inspect.signature` sees the metaclass alone: (*args, **kwargs).
    made = getattr(layer, "__init__") if isinstance(layer, type) else layer  # noqa: B009
    known, free = {}, False
    for name, parameter in inspect.signature(made).parameters.items():
        if parameter.kind is not parameter.VAR_KEYWORD:
            known[name] = parameter.annotation
        elif get_origin(parameter.annotation) is Unpack:
            known |= get_args(parameter.annotation)[0].__annotations__
        else:
            free = True
    return {name: kind for name, kind in known.items() if name != "self"}, free


def _made(path: str, old: nnx.Module, choice: Choice, rngs: nnx.Rngs) -> nnx.Module:
    for kind, (sizes, settings) in _KINDS.items():
        if isinstance(old, kind):
            kept = {name: getattr(old, name) for name in settings if hasattr(old, name)}
            return make_layer(choice, *(getattr(old, s) for s in sizes), **kept, rngs=rngs)
    raise ValueError(
        f"swap: {path!r} is a {type(old).__name__}, whose sizes are not known here. "
        f"Known: {', '.join(kind.__name__ for kind in _KINDS)}."
    )
