# SPDX-License-Identifier: Apache-2.0
"""ListOps by a small transformer with any mixer: a task of 30 to 128 tokens, or the arena's.

    python -m launch.train --config=configs/sequence_classifier.py:small --workdir=runs/listops

Published for "arena" (500 to 2,000 tokens): 36.4 % (arXiv 2011.04006, table 1, Transformer), 37.1 %
with this model of two layers and 64 features (mlpen/Nystromformer, arXiv 2102.03902, table 6);
learned or not is what to look for (33-37 against 16-19), not the second digit. Recipe of the
latter: batch 32, 5,000 steps, rate 1e-4, 1,000 steps of warm-up, dropout 0.1. "small" is a task of
our own, for two CPU cores: no published number.
"""

from ml_collections import ConfigDict

from configs.recipes.imagenet import choose
from efficient_layers.train.defaults import default_config

VARIANTS = {"small": {"max_length": 128}, "arena": {"max_length": 2000}}


def get_config(variant: str = "small") -> ConfigDict:
    """The task; every key is explained in efficient_layers/train/defaults.py."""
    config = default_config()
    fields = {"features": 64, "depth": 2, "num_heads": 2, "mlp_features": 128, "dropout_rate": 0.1}
    chosen = choose(VARIANTS, variant, "sequence_classifier")
    with config.unlocked():
        config.model = ConfigDict({"name": "sequence_classifier", **fields, **chosen})
    config.data.name = "listops"
    config.data.length = chosen["max_length"]
    config.data.batch_size = 64
    config.optimizer.learning_rate = 1e-3
    config.train.duration = "3000 steps"
    if variant == "arena":
        options = {"min_length": 500, "max_depth": 10, "max_arguments": 10}
        with config.unlocked():
            config.data.options.update({**options, "train_examples": 96_000})
        config.data.batch_size = 32
        config.optimizer.learning_rate = 1e-4
        config.optimizer.schedule.warmup = "1000 steps"
        config.train.duration = "5000 steps"
    config.train.eval_every = "500 steps"
    return config
