# SPDX-License-Identifier: Apache-2.0
"""Prune, train on, share weights by k-means, train the centroids, Huffman-code: Deep Compression.

    python -m launch.compress --workdir=RUN --recipe=configs/recipes/deep_compression.py --out=OUT

Reference: Han et al., *Deep Compression* (arXiv 1510.00149), sections 2 to 4.
"""

from ml_collections import ConfigDict

from efficient_layers.train import default_recipe


def get_config() -> ConfigDict:
    """80 % of the weights go, the rest are of 16 values a layer (4 bits)."""
    recipe = default_recipe()

    def tuned(epochs: int, rate: float) -> dict:
        return {
            "train": {"duration": f"{epochs} epochs", "eval_every": "4 epochs"},
            "optimizer": {"learning_rate": rate, "weight_decay": 0.0},
        }

    prune = {"technique": "Prune", "path": "**", "sparsity": 0.8, "distribution": "erk"}
    with recipe.unlocked():
        recipe.phases.prune = {"apply": (prune,)}
        recipe.phases.tune = {"train": tuned(40, 3e-3)}
        recipe.phases.share = {
            "apply": (
                {"technique": "FoldBatchNorm"},
                {"technique": "Cluster", "path": "**", "bits": 4},
            )
        }
        recipe.phases.centroids = {"train": tuned(10, 3e-4)}
    recipe.order = ("prune", "tune", "share", "centroids")
    recipe.packed = True
    return recipe
