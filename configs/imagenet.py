# SPDX-License-Identifier: Apache-2.0
"""MobileNetV2 on ImageNet through TFDS `imagenet2012`, prepared by the user.

    python -m launch.train --config=configs/imagenet.py --workdir=runs/imagenet \
        --config.data.data_dir=$TFDS_DATA_DIR --config.mesh=data:-1

Published: 72.0 % top-1 (arXiv 1801.04381, table 4), with RMSProp, momentum 0.9, weight decay 4e-5
and a learning rate of 0.045 that falls by 2 % an epoch. This is that recipe with the rate scaled
for a batch of 1,024 over the accelerators at hand; not run here, where there is no ImageNet:
`--smoke` and `--dry_run` prove that it starts.
"""

from ml_collections import ConfigDict

from efficient_layers.train.defaults import default_config


def get_config() -> ConfigDict:
    """Values only; every key is explained in efficient_layers/train/defaults.py."""
    config = default_config()
    with config.unlocked():
        config.model.update({"name": "mobilenet_v2", "width": 1.0, "dropout_rate": 0.2})
    config.data.name = "tfds:imagenet2012"
    config.data.test_split = "validation"  # the test labels are not public
    config.data.validation_fraction = 0.01
    config.data.batch_size = 1024
    config.data.eval_batch_size = 1024
    config.data.workers = 16
    config.data.image_size = 224
    config.data.mean = (0.485, 0.456, 0.406)
    config.data.std = (0.229, 0.224, 0.225)
    config.data.crop = "random_resized"
    config.data.flip = True
    config.objective.label_smoothing = 0.1
    config.optimizer.name = "rmsprop"
    config.optimizer.learning_rate = 0.18
    config.optimizer.weight_decay = 4e-5
    config.optimizer.options = ConfigDict({"decay": 0.9, "momentum": 0.9, "eps": 1.0})
    config.optimizer.schedule.name = "exponential"
    config.optimizer.schedule.warmup = "5 epochs"
    config.optimizer.schedule.rate = 0.98
    config.train.duration = "300 epochs"
    config.train.log_every = "100 steps"
    config.train.eval_every = "1 epoch"
    config.train.ema_decay = 0.9999
    config.train.precision = "params=f32,compute=bf16,output=f32"
    config.train.checkpoint.permanent_every = "10%"
    return config
