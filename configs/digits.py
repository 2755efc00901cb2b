# SPDX-License-Identifier: Apache-2.0
"""Small models for 8x8 images on the embedded UCI digits; MobileNetV2 is the main job.

python -m launch.train --config=configs/digits.py --workdir=runs/digits
python -m launch.train --config=configs/digits.py:vit --workdir=runs/digits_vit
"""

from ml_collections import ConfigDict

from configs.recipes.imagenet import choose
from efficient_layers.train.defaults import default_config

_VIT = {"image_size": 8, "patch_size": 2, "features": 64, "depth": 6, "num_heads": 4}
VARIANTS = {
    "mobilenet_v2": {"name": "mobilenet_v2", "variant": "digits", "dropout_rate": 0.1},
    "vit": {"name": "vit", **_VIT, "dropout_rate": 0.1},
}
TRAINING = {"mobilenet_v2": (6e-3, 40), "vit": (3e-3, 200)}  # rate, epochs


def get_config(model: str = "mobilenet_v2") -> ConfigDict:
    """One of `VARIANTS`; every key is explained in efficient_layers/train/defaults.py."""
    config = default_config()
    with config.unlocked():
        config.model.update(choose(VARIANTS, model, "digits"))
    rate, epochs = TRAINING[model]
    config.data.name = "digits"
    config.data.batch_size = 64
    config.data.crop = "pad"
    config.data.padding = 1
    config.objective.label_smoothing = 0.1
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = rate
    config.optimizer.weight_decay = 0.05
    config.train.duration = f"{epochs} epochs"
    config.train.eval_every = f"{epochs // 10} epochs"
    config.train.ema_decay = 0.99
    config.train.checkpoint.permanent_every = "20%"
    return config
