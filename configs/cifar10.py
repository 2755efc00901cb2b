# SPDX-License-Identifier: Apache-2.0
"""CIFAR-10 through TFDS, with the survey's plain CNN or MobileNetV2.

    python -m launch.train --config=configs/cifar10.py --workdir=runs/c10 \
        --config.data.data_dir=$TFDS_DATA_DIR
    python -m launch.train --config=configs/cifar10.py:mobilenet_v2 --workdir=runs/c10_mbv2 ...

Measured on 2026-11-22 with two CPU cores (AMD EPYC), JAX 0.10.2, seed 0, menghani_cnn 0.05 wide,
`--config.train.duration="5 epochs"`: 666 examples/s (68 s an epoch), input wait
0.4 %, compile 5.1 s, MFU 0.21; after 5 epochs validation accuracy 0.525, test accuracy 0.519
(10,000 images; one seed). Published after 100 epochs with the checkpoint chosen by test accuracy:
0.7171 (flip only at this width; arXiv 2106.08962, author's notebook).
"""

from ml_collections import ConfigDict

from configs.recipes.imagenet import choose
from efficient_layers.train.defaults import default_config


def get_config(model: str = "menghani_cnn") -> ConfigDict:
    """`model`: "menghani_cnn" (width 0.05 as published: 14,549 parameters) or "mobilenet_v2"."""
    config = default_config()
    fields = {
        "menghani_cnn": {"width": 0.05, "dropout_rate": 0.15},
        "mobilenet_v2": {"width": 0.5, "dropout_rate": 0.1},
    }
    with config.unlocked():
        config.model.update({"name": model, **choose(fields, model, "cifar10")})
    config.data.name = "tfds:cifar10"
    config.data.batch_size = 128
    config.data.validation_fraction = 0.1
    config.data.cache = True
    config.data.mean = (0.4914, 0.4822, 0.4465)
    config.data.std = (0.2470, 0.2435, 0.2616)
    config.data.crop = "pad"
    config.data.padding = 4
    config.data.flip = True
    config.objective.l2 = 1e-6
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 5e-3
    config.train.duration = "100 epochs"
    return config
