# SPDX-License-Identifier: Apache-2.0
"""Quantisation-aware training: weights are rounded at every call and trained, then stored.

    python -m launch.compress --workdir=RUN --recipe=configs/recipes/qat.py --out=RUN_QAT
    ... --recipe=configs/recipes/qat.py:int8

"int4" (int4 weights, float inputs), "int8" (int8 weights and inputs), "lsq4" (learned steps),
"noise4" (Quant-Noise, half of the weights rounded at a time).
"""

from typing import Any

from ml_collections import ConfigDict

from configs.recipes.imagenet import choose
from efficient_layers.train import default_recipe

KINDS: dict[str, dict[str, Any]] = {
    "int4": {"bits": 4},
    "int8": {"bits": 8, "activations": "static"},
    "lsq4": {"bits": 4, "method": "lsq"},
    "noise4": {"bits": 4, "noise": 0.5},
}


def get_config(kind: str = "int4") -> ConfigDict:
    """`kind`: one of KINDS."""
    settings = choose(KINDS, kind, "recipes/qat")
    recipe = default_recipe()
    fake = {"technique": "Quantize", "path": "**", "mode": "qat", "keep_ends": False}
    tuned = {
        "train": {"duration": "20 epochs", "eval_every": "4 epochs"},
        "optimizer": {"learning_rate": 1e-3, "weight_decay": 0.0},
    }
    with recipe.unlocked():
        recipe.phases.fake = {"apply": ({"technique": "FoldBatchNorm"}, {**fake, **settings})}
        recipe.phases.tune = {"train": tuned}
        recipe.phases.store = {"apply": ({"technique": "Finalize"},)}
    recipe.order = ("fake", "tune", "store")
    return recipe
