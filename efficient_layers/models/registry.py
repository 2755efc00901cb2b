# SPDX-License-Identifier: Apache-2.0
"""Models by name: `create`, `names`, `describe`."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from efficient_layers.models.fields import build_config, nearest, to_json
from efficient_layers.models.menghani_cnn import MenghaniCNN, MenghaniCNNConfig
from efficient_layers.models.mobilenet_v2 import MobileNetV2, MobileNetV2Config


@dataclasses.dataclass(frozen=True)
class Family:
    """`model(config(**fields), rngs=rngs)` builds a member."""

    config: type
    model: Callable[..., nnx.Module]


FAMILIES = {
    "mobilenet_v2": Family(MobileNetV2Config, MobileNetV2),
    "menghani_cnn": Family(MenghaniCNNConfig, MenghaniCNN),
}

# Names of timm: the same network with some fields set.
ALIASES: dict[str, tuple[str, dict[str, Any]]] = {
    "mobilenetv2_035": ("mobilenet_v2", {"width": 0.35}),
    "mobilenetv2_050": ("mobilenet_v2", {"width": 0.5}),
    "mobilenetv2_075": ("mobilenet_v2", {"width": 0.75}),
    "mobilenetv2_100": ("mobilenet_v2", {}),
    "mobilenetv2_140": ("mobilenet_v2", {"width": 1.4}),
}

# Weights are drawn once: code that compiles fast is worth more here than code that runs fast.
_COMPILER_OPTIONS = {"xla_backend_optimization_level": 0}


def names() -> list[str]:
    """The names that `create` takes, aliases included."""
    return sorted([*FAMILIES, *ALIASES])


def describe(name: str, **fields: Any) -> dict[str, Any]:
    """`{"name": family, "fields": every field, resolved}`, ready for JSON.

    `create(d["name"], **d["fields"], rngs=rngs)` builds the same model as `create(name, **fields)`.
    """
    family, config = _resolve(name, fields)
    return {"name": family, "fields": to_json(config)}


def create(name: str, *, rngs: nnx.Rngs, **fields: Any) -> nnx.Module:
    """The named model with fresh weights, in train mode.

    Equal names, fields and `rngs` give equal weights. All weights come from one jitted call.

    Args:
      name: one of `names()`.
      rngs: one key is taken from its "params" stream.
      fields: fields of the family's config; `num_classes=0` gives a model that returns features.

    Raises:
      ValueError: no such model, or a field out of range.
      TypeError: no such field, or a value of the wrong type.
    """
    family, config = _resolve(name, fields)

    def initialise(key: jax.Array) -> tuple[nnx.GraphDef, nnx.State]:
        return nnx.split(FAMILIES[family].model(config, rngs=nnx.Rngs(params=key)))

    key = rngs.params()
    if isinstance(key, jax.core.Tracer):  # inside nnx.eval_shape or a jit of the caller's
        return nnx.merge(*initialise(key))
    return nnx.merge(*jax.jit(initialise, compiler_options=_COMPILER_OPTIONS)(key))


def _resolve(name: str, fields: dict[str, Any]) -> tuple[str, Any]:
    family, preset = ALIASES.get(name, (name, {}))
    if family not in FAMILIES:
        raise ValueError(f"No model is named {name!r}. {nearest(name, names())}")
    return family, build_config(family, FAMILIES[family].config, {**preset, **fields})
