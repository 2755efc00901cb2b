# SPDX-License-Identifier: Apache-2.0
"""Structured removal: channels leave until half the MACs are left, then training goes on.

python -m launch.compress --workdir=RUN --recipe=configs/recipes/remove.py --out=RUN_SMALL
"""

from ml_collections import ConfigDict

from efficient_layers.train import default_recipe


def get_config() -> ConfigDict:
    """Another target on the command line: `--recipe.phases.remove.apply=...`."""
    recipe = default_recipe()
    step = {"technique": "RemoveChannels", "path": "**", "macs": 0.5}
    tuned = {
        "train": {"duration": "60 epochs", "eval_every": "4 epochs"},
        "optimizer": {"learning_rate": 6e-3},
    }
    with recipe.unlocked():
        recipe.phases.remove = {"apply": (step,)}
        recipe.phases.tune = {"train": tuned}
    recipe.order = ("remove", "tune")
    return recipe
