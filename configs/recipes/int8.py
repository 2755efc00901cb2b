# SPDX-License-Identifier: Apache-2.0
"""Post-training quantisation: BatchNorms folded, weights as integers, no training.

    python -m launch.compress --workdir=RUN --recipe=configs/recipes/int8.py --out=RUN_INT8
    ... --recipe=configs/recipes/int8.py:dynamic

"static" (int8 inputs, ranges from training data), "dynamic" (int8 inputs, a scale a row), "weights"
(int8 weights, float inputs), "int4" (int4 weights in groups of 32, float inputs).
"""

from typing import Any

from ml_collections import ConfigDict

from configs.recipes.imagenet import choose
from efficient_layers.train import default_recipe

KINDS: dict[str, dict[str, Any]] = {
    "static": {"activations": "static", "clip": "mse"},
    "dynamic": {"activations": "dynamic"},
    "weights": {},
    "int4": {"bits": 4},
}


def get_config(kind: str = "static") -> ConfigDict:
    """`kind`: one of KINDS."""
    settings = choose(KINDS, kind, "recipes/int8")
    recipe = default_recipe()
    quantize = {"technique": "Quantize", "path": "**", "keep_ends": False, **settings}
    with recipe.unlocked():
        recipe.phases.quantise = {"apply": ({"technique": "FoldBatchNorm"}, quantize)}
    recipe.order = ("quantise",)
    return recipe
