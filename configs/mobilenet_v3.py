# SPDX-License-Identifier: Apache-2.0
"""MobileNetV3 on ImageNet through TFDS `imagenet2012`, prepared by the user.

    python -m launch.train --config=configs/mobilenet_v3.py:large --workdir=runs/mobilenet_v3 \
        --config.data.data_dir=$TFDS_DATA_DIR --config.mesh=data:-1

Published top-1 accuracy (%) in `PUBLISHED`: arXiv 1905.02244, table 3.
The paper's recipe (section 6.1.1): RMSProp, momentum 0.9, batch 4,096, rate 0.1 that falls by 1 %
every 3 epochs, weight decay 1e-5, dropout 0.2, averaged weights. The number of epochs is not
printed; 600 here.
Not run here, where there is no ImageNet: `--smoke` and `--dry_run` prove that it starts.
"""

from ml_collections import ConfigDict

from configs.recipes.imagenet import choose, imagenet, rmsprop

VARIANTS = {
    "large": {"variant": "large", "dropout_rate": 0.2},
    "small": {"variant": "small", "dropout_rate": 0.2},
    "large_0.75": {"variant": "large", "width": 0.75, "dropout_rate": 0.2},
    "small_0.75": {"variant": "small", "width": 0.75, "dropout_rate": 0.2},
}
PUBLISHED = {"large": 75.2, "small": 67.4, "large_0.75": 73.3, "small_0.75": 65.4}


def get_config(variant: str = "large") -> ConfigDict:
    """One of `VARIANTS`; every key is explained in efficient_layers/train/defaults.py."""
    fields = choose(VARIANTS, variant, "mobilenet_v3")
    config = imagenet("mobilenet_v3", fields)
    return rmsprop(
        config, learning_rate=0.1, batch_size=4096, decay=0.99, every="3 epochs", epochs=600
    )
