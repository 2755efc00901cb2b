# SPDX-License-Identifier: Apache-2.0
"""Models by name: `create`, `names`, `describe`."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from efficient_layers.models import (
    albert,
    bert,
    convnext,
    decoder,
    distilbert,
    efficientnet,
    ghostnet,
    gpt2,
    menghani_cnn,
    mlp_mixer,
    mnasnet,
    mnist1d,
    mobilebert,
    mobilenet_v1,
    mobilenet_v2,
    mobilenet_v3,
    mobilevit,
    mqar,
    pqrnn,
    repvgg,
    resnet,
    seq2seq,
    sequence_classifier,
    shufflenet_v2,
    squeezenet,
    vgg,
    vit,
)
from efficient_layers.models.family import Family
from efficient_layers.models.fields import build_config, nearest, to_json
from efficient_layers.models.swap import swap_layers
from efficient_layers.models.torch_weights import (
    TorchNames,
    load_state_dict,
    state_dict_of,
    tensors_of,
)
from efficient_layers.models.weight_file import read_weights

_MODULES = (
    albert,
    bert,
    convnext,
    decoder,
    distilbert,
    efficientnet,
    ghostnet,
    gpt2,
    menghani_cnn,
    mlp_mixer,
    mnasnet,
    mnist1d,
    mobilebert,
    mobilenet_v1,
    mobilenet_v2,
    mobilenet_v3,
    mobilevit,
    mqar,
    pqrnn,
    repvgg,
    resnet,
    seq2seq,
    sequence_classifier,
    shufflenet_v2,
    squeezenet,
    vgg,
    vit,
)

FAMILIES: dict[str, Family] = {module.FAMILY.name: module.FAMILY for module in _MODULES}

# Public names of timm, torchvision and transformers: a family with some fields set.
ALIASES: dict[str, tuple[str, Mapping[str, Any]]] = {
    name: (family.name, fields)
    for family in FAMILIES.values()
    for name, fields in family.names.items()
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
    swap = fields.pop("swap", None)
    family, config = _resolve(name, fields)
    swapped = {"swap": {glob: _plain(choice) for glob, choice in swap.items()}} if swap else {}
    return {"name": family.name, "fields": to_json(config) | swapped}


def create(
    name: str,
    *,
    rngs: nnx.Rngs,
    weights: str | Path | None = None,
    swap: Mapping[str, Any] | None = None,
    **fields: Any,
) -> nnx.Module:
    """The named model with fresh weights, in train mode.

    Equal names, fields and `rngs` give equal weights. All weights come from one jitted call.

    Args:
      name: one of `names()`.
      rngs: one key is taken from its "params" stream.
      weights: a file of torch weights under the names of timm, torchvision or transformers
        (safetensors, or an .npz of arrays; never a pickle). A classifier of another shape keeps its
        fresh values, and the log says so.
      swap: glob on module paths -> another layer of `el.layers`; see `models/swap.py`.
      fields: fields of the family's config; `num_classes=0` gives a model that returns features.

    Raises:
      ValueError: no such model, a field out of range, a swap that matches nothing.
      TypeError: no such field, or a value of the wrong type.
      WeightsError: weights of another model; all differences are listed.
    """
    family, config = _resolve(name, fields)
    state_dict = None if weights is None else read_weights(weights)

    def initialise(key: jax.Array) -> tuple[nnx.GraphDef, nnx.State]:
        model = family.model(config, rngs=nnx.Rngs(params=key))
        if swap:
            swap_layers(model, swap, rngs=nnx.Rngs(params=jax.random.fold_in(key, 1)))
        return nnx.split(model)

    key = rngs.params()
    if isinstance(key, jax.core.Tracer):  # inside nnx.eval_shape or a jit of the caller's
        return nnx.merge(*initialise(key))
    model = nnx.merge(*jax.jit(initialise, compiler_options=_COMPILER_OPTIONS)(key))
    if state_dict is not None:
        skipped = load_torch(model, state_dict, any_head=True)
        for line in skipped:
            logging.getLogger(__name__).warning("%s: not loaded: %s", weights, line)
    return model


def load_torch(
    model: nnx.Module,
    state_dict: Mapping[str, Any],
    *,
    source: str | None = None,
    any_head: bool = False,
) -> list[str]:
    """Fills `model` in place with torch weights; where anything does not fit, nothing is changed.

    Args:
      state_dict: name -> torch tensor, NumPy or JAX array, as `module.state_dict()` or a
        safetensors file gives it.
      source: whose names: "timm", "torchvision" or "transformers"; None takes what fits best.
      any_head: a classifier that is absent, of another shape or left over is passed by.

    Returns:
      Lines on what was passed by.

    Raises:
      WeightsError: entries are missing, unexpected or mis-shaped; all are listed.
      ValueError: a model of no family, or a family without weights of that source.
    """
    known = _torch_names(model, source)
    best = max(known, key=lambda names: _overlap(model, names, state_dict))
    return load_state_dict(model, best, state_dict, any_head=any_head)


def export_torch(model: nnx.Module, source: str | None = None) -> dict[str, np.ndarray]:
    """The model's arrays as a torch state dict; `source` None takes the family's first.

    `module.load_state_dict({k: torch.from_numpy(v) for k, v in export_torch(model).items()})` fills
    their model of the same variant; of tied tensors one copy is written.

    Raises:
      ValueError: a model of no family, or a family without weights of that source.
    """
    return state_dict_of(model, _torch_names(model, source)[0])


def _overlap(model: nnx.Module, names: TorchNames, state_dict: Mapping[str, Any]) -> int:
    return sum(name in state_dict for name, _ in tensors_of(model, names))


def _torch_names(model: nnx.Module, source: str | None) -> list[TorchNames]:
    family = next((f for f in FAMILIES.values() if type(model) is f.model), None)
    if family is None:
        raise ValueError(f"{type(model).__name__} is of no family; known: {', '.join(FAMILIES)}.")
    if (source is not None and source not in family.torch) or not family.torch:
        raise ValueError(
            f"{family.name} has no weights named as in {source or 'torch'}. "
            f"It has: {', '.join(family.torch) or 'none'}."
        )
    return list(family.torch.values()) if source is None else [family.torch[source]]


def _plain(choice: Any) -> Any:
    return choice if isinstance(choice, str) else dict(choice)


def _resolve(name: str, fields: dict[str, Any]) -> tuple[Family, Any]:
    family, preset = ALIASES.get(name, (name, {}))
    if family not in FAMILIES:
        raise ValueError(f"No model is named {name!r}. {nearest(name, names(), FAMILIES)}")
    return FAMILIES[family], build_config(family, FAMILIES[family].config, {**preset, **fields})
