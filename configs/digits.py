# SPDX-License-Identifier: Apache-2.0
"""MobileNetV2 cut for 8x8 images on the embedded UCI digits: the main job.

python -m launch.train --config=configs/digits.py --workdir=runs/digits
"""

from ml_collections import ConfigDict

from efficient_layers.train.defaults import default_config


def get_config() -> ConfigDict:
    """Values only; every key is explained in efficient_layers/train/defaults.py."""
    config = default_config()
    with config.unlocked():
        config.model.update({"name": "mobilenet_v2", "variant": "digits", "dropout_rate": 0.1})
    config.data.name = "digits"
    config.data.batch_size = 64
    config.data.crop = "pad"
    config.data.padding = 1
    config.objective.label_smoothing = 0.1
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 6e-3
    config.optimizer.weight_decay = 0.05
    config.train.duration = "40 epochs"
    config.train.eval_every = "4 epochs"
    config.train.ema_decay = 0.99
    config.train.checkpoint.permanent_every = "20%"
    return config
