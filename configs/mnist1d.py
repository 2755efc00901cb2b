# SPDX-License-Identifier: Apache-2.0
"""The four networks of MNIST-1D on its data, which are made on the spot.

    python -m launch.train --config=configs/mnist1d.py:cnn --workdir=runs/mnist1d

Published test accuracy (%) in `PUBLISHED`: greydanus/mnist1d, mnist1d-classification.ipynb, step
6,000 (the README rounds the best of each: 32, 68, 94, 91; arXiv 2011.14439). Recipe: Adam at 0.01,
batch 100, 6,000 steps. Differs: batches are drawn anew each epoch, and 400 of the 4,000 training
examples are validation unless `--config.data.validation_fraction=0`.
"""

from ml_collections import ConfigDict

from configs.recipes.imagenet import choose
from efficient_layers.train.defaults import default_config

VARIANTS = {name: {"variant": name} for name in ("linear", "mlp", "cnn", "gru")}
PUBLISHED = {"linear": 31.5, "mlp": 65.1, "cnn": 92.3, "gru": 89.1}


def get_config(variant: str = "cnn") -> ConfigDict:
    """One of `VARIANTS`; every key is explained in efficient_layers/train/defaults.py."""
    config = default_config()
    with config.unlocked():
        config.model = ConfigDict({"name": "mnist1d", **choose(VARIANTS, variant, "mnist1d")})
    config.data.name = "mnist1d"
    config.data.batch_size = 100
    config.data.validation_fraction = 0.1
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-2
    config.optimizer.schedule.name = "constant"
    config.optimizer.schedule.warmup = "0%"
    config.train.duration = "6000 steps"
    config.train.log_every = "200 steps"
    config.train.eval_every = "1000 steps"
    return config
