# SPDX-License-Identifier: Apache-2.0
"""Removal, low rank and int8 in a chain: train large, then compress (Li et al., 2020).

    python -m launch.compress --workdir=RUN --recipe=configs/recipes/chain.py --out=RUN_CHAIN

Channels leave until 42 % of the MACs are left; training goes on and prunes 75 % of what is left on
the way. Linear layers become products of thinner ones where that pays, BatchNorms are folded, all
is stored as int8, and written again as packed.elp, its codes Huffman-coded.

Reference: Li et al., *Train Large, Then Compress* (arXiv 2002.11794); Han et al., *Deep
Compression* (arXiv 1510.00149).
"""

from ml_collections import ConfigDict

from efficient_layers.train import default_recipe


def get_config() -> ConfigDict:
    """Values only."""
    recipe = default_recipe()
    tuned = {
        "train": {"duration": "80 epochs", "eval_every": "4 epochs"},
        "optimizer": {"learning_rate": 6e-3},
        "sparsity": {
            "name": "gradual",
            "sparsity": 0.75,
            "distribution": "erk",
            "begin": "25%",
            "every": "20 steps",
        },
    }
    remove = {"technique": "RemoveChannels", "path": "**", "macs": 0.42}
    low_rank = {"technique": "LowRank", "path": "**", "energy": 0.95}
    int8 = {"technique": "Quantize", "path": "**", "activations": "static", "clip": "mse"}
    with recipe.unlocked():
        recipe.phases.remove = {"apply": (remove,)}
        recipe.phases.tune = {"train": tuned}
        recipe.phases.store = {
            "apply": (low_rank, {"technique": "FoldBatchNorm"}, {**int8, "keep_ends": False})
        }
    recipe.order = ("remove", "tune", "store")
    recipe.packed = True
    return recipe
