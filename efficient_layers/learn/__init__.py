# SPDX-License-Identifier: Apache-2.0
"""Learning techniques: objectives and random transforms.

An objective is `objective(model, batch, rngs) -> (loss, metrics)`. Axis letters: b h w c, and k for
classes.
"""

from efficient_layers.learn import augment
from efficient_layers.learn.language import language_modelling, masked_language_modelling
from efficient_layers.learn.supervised import call, classification

__all__ = [
    "augment",
    "call",
    "classification",
    "language_modelling",
    "masked_language_modelling",
]
