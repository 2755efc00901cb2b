# SPDX-License-Identifier: Apache-2.0
"""Multi-query associative recall (MQAR): which mixers remember, at 64 tokens and 4 pairs.

    python -m launch.train --config=configs/mqar.py:attention --workdir=runs/mqar

Published (arXiv 2312.04927, figure 2): attention solves it (accuracy 1.00) at every width and
length; mixers with a state of fixed size fall behind as pairs grow. Recipe (HazyResearch/zoology,
iclr24_zoology_figure2): 100,000 examples, 64 epochs, batch 512, AdamW with weight decay 0.1, the
best of four rates from 1e-4 to 1e-2, cosine. Here: one rate, 16 epochs, stopped by
`--target="accuracy>=0.99" --stop_at_target`, as theirs is.
"""

from ml_collections import ConfigDict

from configs.recipes.imagenet import choose
from efficient_layers.train.defaults import default_config

VARIANTS = {
    "attention": {"attention": "MultiHeadAttention"},
    "linear_attention": {"attention": "LinearAttention"},
}


def get_config(variant: str = "attention") -> ConfigDict:
    """The mixer; every key is explained in efficient_layers/train/defaults.py."""
    config = default_config()
    fields = {"features": 64, "depth": 2, "num_heads": 1, "max_length": 64}
    with config.unlocked():
        chosen = choose(VARIANTS, variant, "mqar")
        config.model = ConfigDict({"name": "mqar", **fields, **chosen})
        config.data.options.update({"pairs": 4, "random_non_queries": False})
    config.data.name = "mqar"
    config.data.length = 64
    config.data.batch_size = 512
    config.objective.name = "language_modelling"
    config.optimizer.learning_rate = 2e-3
    config.optimizer.weight_decay = 0.1
    config.train.duration = "16 epochs"
    return config
