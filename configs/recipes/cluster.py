# SPDX-License-Identifier: Apache-2.0
"""Clustering: the weights of a layer share 16 numbers, which are then trained.

    python -m launch.compress --workdir=RUN --recipe=configs/recipes/cluster.py --out=RUN_CLUSTER

Reference: Han et al., *Deep Compression* (arXiv 1510.00149), section 3.
"""

from ml_collections import ConfigDict

from efficient_layers.train import default_recipe


def get_config() -> ConfigDict:
    """4 bits a weight."""
    recipe = default_recipe()
    steps = ({"technique": "FoldBatchNorm"}, {"technique": "Cluster", "path": "**", "bits": 4})
    tuned = {
        "train": {"duration": "10 epochs", "eval_every": "2 epochs"},
        "optimizer": {"learning_rate": 3e-4, "weight_decay": 0.0},
    }
    with recipe.unlocked():
        recipe.phases.cluster = {"apply": steps}
        recipe.phases.centroids = {"train": tuned}
    recipe.order = ("cluster", "centroids")
    recipe.packed = True
    return recipe
