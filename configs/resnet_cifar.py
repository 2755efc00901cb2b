# SPDX-License-Identifier: Apache-2.0
"""The CIFAR ResNets (20 to 110 layers) on CIFAR-10 through TFDS.

    python -m launch.train --config=configs/resnet_cifar.py:20 --workdir=runs/resnet20 \
        --config.data.data_dir=$TFDS_DATA_DIR

Published test accuracy (%) in `PUBLISHED`: arXiv 1512.03385, table 6 (its errors are 8.75, 7.51,
7.17, 6.97, 6.43). Recipe (section 4.2): SGD with momentum 0.9, batch 128, weight decay 1e-4, rate
0.1 divided by 10 after 32,000 and 48,000 of 64,000 steps; 4 pixels of padding, crop, flip. Differs:
110 layers start at 0.1 with a warm-up, not at 0.01 for 400 steps.
"""

from ml_collections import ConfigDict

from configs.recipes.imagenet import choose
from efficient_layers.train.defaults import default_config

VARIANTS = {f"{layers}": {"variant": f"cifar{layers}"} for layers in (20, 32, 44, 56, 110)}
PUBLISHED = {"20": 91.25, "32": 92.49, "44": 92.83, "56": 93.03, "110": 93.57}


def get_config(variant: str = "20") -> ConfigDict:
    """The number of layers; every key is explained in efficient_layers/train/defaults.py."""
    config = default_config()
    with config.unlocked():
        config.model = ConfigDict({"name": "resnet", **choose(VARIANTS, variant, "resnet_cifar")})
    config.data.name = "tfds:cifar10"
    config.data.batch_size = 128
    config.data.validation_fraction = 0.1
    config.data.cache = True
    config.data.mean = (0.4914, 0.4822, 0.4465)
    config.data.std = (0.2470, 0.2435, 0.2616)
    config.data.crop = "pad"
    config.data.padding = 4
    config.data.flip = True
    config.optimizer.name = "momentum"
    config.optimizer.learning_rate = 0.1
    config.optimizer.weight_decay = 1e-4
    config.optimizer.schedule.name = "step"
    config.optimizer.schedule.warmup = "400 steps" if variant == "110" else "0%"
    config.optimizer.schedule.boundaries = ("32000 steps", "48000 steps")
    config.train.duration = "64000 steps"
    return config
