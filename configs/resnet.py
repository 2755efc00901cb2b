# SPDX-License-Identifier: Apache-2.0
"""ResNet on ImageNet through TFDS `imagenet2012`, prepared by the user.

    python -m launch.train --config=configs/resnet.py:50 --workdir=runs/resnet \
        --config.data.data_dir=$TFDS_DATA_DIR --config.mesh=data:-1

Published top-1 accuracy (%) in `PUBLISHED`: torchvision's IMAGENET1K_V1 weights
(references/classification/README.md), whose recipe this is.
SGD with momentum 0.9, batch 256, rate 0.1 divided by 10 every 30 of 90 epochs, weight decay 1e-4
(arXiv 1512.03385, section 3.4, trains until the error levels off). The CIFAR networks are in
resnet_cifar.py.
Not run here, where there is no ImageNet: `--smoke` and `--dry_run` prove that it starts.
"""

from ml_collections import ConfigDict

from configs.recipes.imagenet import choose, imagenet, sgd

VARIANTS = {
    "50": {"variant": "50"},
    "18": {"variant": "18"},
    "34": {"variant": "34"},
    "101": {"variant": "101"},
    "152": {"variant": "152"},
}
PUBLISHED = {"50": 76.13, "18": 69.758, "34": 73.314, "101": 77.374, "152": 78.312}


def get_config(variant: str = "50") -> ConfigDict:
    """One of `VARIANTS`; every key is explained in efficient_layers/train/defaults.py."""
    fields = choose(VARIANTS, variant, "resnet")
    config = imagenet("resnet", fields)
    return sgd(
        config,
        learning_rate=0.1,
        batch_size=256,
        epochs=90,
        schedule="step",
        weight_decay=1e-4,
    )
