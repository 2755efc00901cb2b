# SPDX-License-Identifier: Apache-2.0
"""A recipe: phases that compress a trained model and train it on, as values of a configuration.

    recipe.order = ("remove", "tune", "int8")
    recipe.phases.remove = {"apply": ({"technique": "RemoveChannels", "path": "**", "macs": 0.5},)}
    recipe.phases.tune = {"train": {"train": {"duration": "10 epochs"}}}
    recipe.phases.int8 = {"apply": ({"technique": "FoldBatchNorm"}, {"technique": "Quantize", ...})}

`apply` is a chain of techniques of `el.compress` with their settings; `train` are the keys of the
run's own configuration that change for this phase.
"""

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from efficient_layers import compress
from efficient_layers.models.fields import nearest
from efficient_layers.train.defaults import read_config


@dataclasses.dataclass(frozen=True)
class Phase:
    """One link of the chain: either `steps` for `el.compress.apply`, or a `config` to train by."""

    name: str
    steps: tuple[compress.Technique, ...] = ()
    config: ConfigDict | None = None


def default_recipe() -> ConfigDict:
    """Every key of a recipe but its phases; locked, so that a mistyped one fails at once."""
    recipe = ConfigDict()
    recipe.order = ()  # names of phases
    recipe.phases = ConfigDict()
    # What techniques see that calibrate: training examples, not augmented
    recipe.calibration = ConfigDict({"batches": 8, "batch_size": 64})
    recipe.packed = False  # also write packed.elp: Huffman-coded, bitmasks for zeros
    return recipe.lock()


def phases(recipe: ConfigDict, config: dict[str, Any]) -> list[Phase]:
    """The phases in order; everything that a name or a value can get wrong is found here.

    Args:
      config: the configuration of the run that is compressed, as its config.json has it.

    Raises:
      ValueError: no phase, one that is not there, that does neither or both, an unknown technique
        or setting, a key that a configuration does not have.
    """
    named = recipe.phases.to_dict()
    if not recipe.order or set(recipe.order) - named.keys():
        raise ValueError(
            f"A recipe's order names its phases, {', '.join(named) or 'none here'}. Got "
            f"{tuple(recipe.order)}."
        )
    return [_phase(name, named[name], config) for name in recipe.order]


def technique(settings: dict[str, Any]) -> compress.Technique:
    """`{"technique": "Prune", "path": "**", "sparsity": 0.8}` -> the step.

    Raises:
      ValueError: an unknown technique or setting; what the technique itself refuses.
    """
    given = dict(settings)
    name = given.pop("technique", None)
    known = techniques()
    if name not in known:
        raise ValueError(f"No technique is named {name!r}. {nearest(str(name), known)}")
    fields = [field.name for field in dataclasses.fields(known[name])]
    for key in given:
        if key not in fields:
            raise ValueError(f"{name} has no setting {key!r}. {nearest(key, fields)}")
    try:
        return known[name](**given)
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from None


def techniques() -> dict[str, type[compress.Technique]]:
    """Those of `el.compress`, by name."""
    found = {name: getattr(compress, name) for name in compress.__all__}
    return {
        name: cls
        for name, cls in found.items()
        if isinstance(cls, type)
        and issubclass(cls, compress.Technique)
        and cls is not compress.Technique
    }


def _phase(name: str, settings: dict[str, Any], config: dict[str, Any]) -> Phase:
    if settings.keys() not in ({"apply"}, {"train"}):
        raise ValueError(
            f"Phase {name!r} has either an apply (techniques) or a train (changes of the "
            f"configuration). Got {', '.join(settings) or 'nothing'}."
        )
    try:
        if "apply" in settings:
            return Phase(name, steps=tuple(technique(step) for step in settings["apply"]))
        changed = read_config(config)
        changed.init_from = ""
        changed.update(ConfigDict(settings["train"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"Phase {name!r}: {error.args[0]}") from None
    return Phase(name, config=changed)
