# SPDX-License-Identifier: Apache-2.0
"""SqueezeNet on ImageNet through TFDS `imagenet2012`, prepared by the user.

    python -m launch.train --config=configs/squeezenet.py:1.1 --workdir=runs/squeezenet \
        --config.data.data_dir=$TFDS_DATA_DIR --config.mesh=data:-1

Published top-1 accuracy (%) in `PUBLISHED`: arXiv 1602.07360, table 2; 1.1 has the accuracy of
1.0 (its README).
The authors' solver (github.com/forresti/SqueezeNet): SGD, batch 512, rate 0.04 falling linearly
to 0 over 170,000 steps (68 epochs), weight decay 2e-4. Differs: 224 x 224 pixels, not 227.
Not run here, where there is no ImageNet: `--smoke` and `--dry_run` prove that it starts.
"""

from ml_collections import ConfigDict

from configs.recipes.imagenet import choose, imagenet, sgd

VARIANTS = {
    "1.0": {"variant": "1.0"},
    "1.1": {"variant": "1.1"},
}
PUBLISHED = {"1.0": 57.5, "1.1": 57.5}


def get_config(variant: str = "1.1") -> ConfigDict:
    """One of `VARIANTS`; every key is explained in efficient_layers/train/defaults.py."""
    fields = choose(VARIANTS, variant, "squeezenet")
    config = imagenet("squeezenet", fields)
    return sgd(
        config,
        learning_rate=0.04,
        batch_size=512,
        epochs=68,
        schedule="linear",
        weight_decay=2e-4,
    )
