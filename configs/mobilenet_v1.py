# SPDX-License-Identifier: Apache-2.0
"""MobileNetV1 on ImageNet through TFDS `imagenet2012`, prepared by the user.

    python -m launch.train --config=configs/mobilenet_v1.py:1.0 --workdir=runs/mobilenet_v1 \
        --config.data.data_dir=$TFDS_DATA_DIR --config.mesh=data:-1

Published top-1 accuracy (%) in `PUBLISHED`: arXiv 1704.04861, table 6.
The paper trains by asynchronous RMSProp with little decay and augmentation and gives no numbers;
these are those of MobileNetV2 (see mobilenet_v2.py).
Not run here, where there is no ImageNet: `--smoke` and `--dry_run` prove that it starts.
"""

from ml_collections import ConfigDict

from configs.recipes.imagenet import choose, imagenet, rmsprop

VARIANTS = {
    "1.0": {"width": 1.0},
    "0.75": {"width": 0.75},
    "0.5": {"width": 0.5},
    "0.25": {"width": 0.25},
}
PUBLISHED = {"1.0": 70.6, "0.75": 68.4, "0.5": 63.7, "0.25": 50.6}


def get_config(variant: str = "1.0") -> ConfigDict:
    """One of `VARIANTS`; every key is explained in efficient_layers/train/defaults.py."""
    fields = choose(VARIANTS, variant, "mobilenet_v1")
    config = imagenet("mobilenet_v1", fields)
    return rmsprop(
        config,
        learning_rate=0.18,
        batch_size=1024,
        decay=0.98,
        every="1 epoch",
        epochs=300,
        weight_decay=4e-5,
        eps=1.0,
    )
