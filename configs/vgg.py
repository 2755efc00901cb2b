# SPDX-License-Identifier: Apache-2.0
"""VGG on ImageNet through TFDS `imagenet2012`, prepared by the user.

    python -m launch.train --config=configs/vgg.py:11_bn --workdir=runs/vgg \
        --config.data.data_dir=$TFDS_DATA_DIR --config.mesh=data:-1

Published top-1 accuracy (%) in `PUBLISHED`: torchvision's IMAGENET1K_V1 weights
(references/classification/README.md), whose recipe this is.
SGD with momentum 0.9, batch 256, rate 0.01 divided by 10 every 30 of 90 epochs, weight decay
1e-4; arXiv 1409.1556, section 3.1, has 5e-4 and 74 epochs.
Not run here, where there is no ImageNet: `--smoke` and `--dry_run` prove that it starts.
"""

from ml_collections import ConfigDict

from configs.recipes.imagenet import choose, imagenet, sgd

VARIANTS = {
    "11": {"variant": "11"},
    "13": {"variant": "13"},
    "16": {"variant": "16"},
    "19": {"variant": "19"},
    "11_bn": {"variant": "11", "batch_norm": True},
    "13_bn": {"variant": "13", "batch_norm": True},
    "16_bn": {"variant": "16", "batch_norm": True},
    "19_bn": {"variant": "19", "batch_norm": True},
}
PUBLISHED = {
    "11": 69.02,
    "13": 69.928,
    "16": 71.592,
    "19": 72.376,
    "11_bn": 70.37,
    "13_bn": 71.586,
    "16_bn": 73.36,
    "19_bn": 74.218,
}


def get_config(variant: str = "11_bn") -> ConfigDict:
    """One of `VARIANTS`; every key is explained in efficient_layers/train/defaults.py."""
    fields = choose(VARIANTS, variant, "vgg")
    config = imagenet("vgg", fields)
    return sgd(
        config,
        learning_rate=0.01,
        batch_size=256,
        epochs=90,
        schedule="step",
        weight_decay=1e-4,
    )
