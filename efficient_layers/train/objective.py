# SPDX-License-Identifier: Apache-2.0
"""`config.objective` -> the objective that a run trains and is scored by."""

import inspect
from collections.abc import Callable

from ml_collections import ConfigDict

from efficient_layers import learn
from efficient_layers.models.fields import nearest
from efficient_layers.train.defaults import default_config
from efficient_layers.train.step import Objective

OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "classification": learn.classification,
    "language_modelling": learn.language_modelling,
    "masked_language_modelling": learn.masked_language_modelling,
}


def make_objective(config: ConfigDict) -> Objective:
    """The objective `config` names, with those of the settings that it has.

    Raises:
      ValueError: an unknown name, or a setting changed that this objective does not have.
    """
    settings = config.to_dict()
    name = settings.pop("name")
    if name not in OBJECTIVES:
        raise ValueError(f"unknown objective {name!r}. {nearest(name, OBJECTIVES)}")
    takes = inspect.signature(OBJECTIVES[name]).parameters
    for key, default in default_config().objective.items():
        if key not in takes and settings.pop(key, default) != default and key != "name":
            raise ValueError(
                f"objective {name!r} has no {key!r}; it has {', '.join(takes) or 'no settings'}"
            )
    return OBJECTIVES[name](**settings)
