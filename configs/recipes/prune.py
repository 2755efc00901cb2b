# SPDX-License-Identifier: Apache-2.0
"""Magnitude pruning: weights are masked, not removed, and what is left is trained on.

    python -m launch.compress --workdir=RUN --recipe=configs/recipes/prune.py --out=RUN_PRUNED
    ... --recipe=configs/recipes/prune.py:gradual
    ... --recipe.phases.prune.apply="({'technique': 'Prune', 'path': '**', 'sparsity': 0.9},)"

"one_shot" prunes 80 % (small arrays less, ERK) and trains on; "gradual" prunes to 80 % while it
trains.
"""

from ml_collections import ConfigDict

from efficient_layers.train import default_recipe


def get_config(kind: str = "one_shot") -> ConfigDict:
    """`kind`: "one_shot" or "gradual"."""
    if kind not in ("one_shot", "gradual"):
        raise ValueError(f"configs/recipes/prune.py:{kind}: choose one_shot or gradual")
    recipe = default_recipe()
    tuned = {
        "train": {"duration": "60 epochs", "eval_every": "4 epochs"},
        "optimizer": {"learning_rate": 6e-3, "weight_decay": 0.0},
    }
    with recipe.unlocked():
        if kind == "gradual":
            sparsity = {
                "name": "gradual",
                "sparsity": 0.8,
                "distribution": "erk",
                "every": "20 steps",
            }
            recipe.phases.tune = {"train": {**tuned, "sparsity": sparsity}}
            recipe.order = ("tune",)
        else:
            step = {"technique": "Prune", "path": "**", "sparsity": 0.8, "distribution": "erk"}
            recipe.phases.prune = {"apply": (step,)}
            recipe.phases.tune = {"train": tuned}
            recipe.order = ("prune", "tune")
    recipe.packed = True  # zeros cost nothing in packed.elp
    return recipe
