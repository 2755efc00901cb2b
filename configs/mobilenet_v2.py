# SPDX-License-Identifier: Apache-2.0
"""MobileNetV2 on ImageNet through TFDS `imagenet2012`, prepared by the user.

    python -m launch.train --config=configs/mobilenet_v2.py:1.0 --workdir=runs/mobilenet_v2 \
        --config.data.data_dir=$TFDS_DATA_DIR --config.mesh=data:-1

Published top-1 accuracy (%) in `PUBLISHED`: arXiv 1801.04381, table 4 (1.0 and 1.4); TF-Slim's
README for the others.
The paper's recipe (section 6.1): RMSProp, momentum 0.9, weight decay 4e-5, a learning rate of
0.045 that falls by 2 % an epoch with batch 96 on 16 asynchronous workers; here the rate is scaled
for one batch of 1,024.
Not run here, where there is no ImageNet: `--smoke` and `--dry_run` prove that it starts.
"""

from ml_collections import ConfigDict

from configs.recipes.imagenet import choose, imagenet, rmsprop

VARIANTS = {
    "1.0": {"width": 1.0, "dropout_rate": 0.2},
    "1.4": {"width": 1.4, "dropout_rate": 0.2},
    "0.75": {"width": 0.75, "dropout_rate": 0.2},
    "0.5": {"width": 0.5, "dropout_rate": 0.2},
    "0.35": {"width": 0.35, "dropout_rate": 0.2},
}
PUBLISHED = {"1.0": 72.0, "1.4": 74.7, "0.75": 69.8, "0.5": 65.4, "0.35": 60.3}


def get_config(variant: str = "1.0") -> ConfigDict:
    """One of `VARIANTS`; every key is explained in efficient_layers/train/defaults.py."""
    fields = choose(VARIANTS, variant, "mobilenet_v2")
    config = imagenet("mobilenet_v2", fields)
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
