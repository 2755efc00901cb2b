# SPDX-License-Identifier: Apache-2.0
"""ShuffleNetV2 on ImageNet through TFDS `imagenet2012`, prepared by the user.

    python -m launch.train --config=configs/shufflenet_v2.py:1.0 --workdir=runs/shufflenet_v2 \
        --config.data.data_dir=$TFDS_DATA_DIR --config.mesh=data:-1

Published top-1 accuracy (%) in `PUBLISHED`: arXiv 1807.11164, table 8.
The authors' recipe (arXiv 1707.01083, section 4, and their code): SGD, batch 1,024, rate 0.5
falling linearly to 0 over 300,000 steps (240 epochs), weight decay 4e-5, label smoothing 0.1.
Not run here, where there is no ImageNet: `--smoke` and `--dry_run` prove that it starts.
"""

from ml_collections import ConfigDict

from configs.recipes.imagenet import choose, imagenet, sgd

VARIANTS = {
    "1.0": {"variant": "1.0"},
    "0.5": {"variant": "0.5"},
    "1.5": {"variant": "1.5"},
    "2.0": {"variant": "2.0"},
}
PUBLISHED = {"1.0": 69.4, "0.5": 60.3, "1.5": 72.6, "2.0": 74.9}


def get_config(variant: str = "1.0") -> ConfigDict:
    """One of `VARIANTS`; every key is explained in efficient_layers/train/defaults.py."""
    fields = choose(VARIANTS, variant, "shufflenet_v2")
    config = imagenet("shufflenet_v2", fields)
    return sgd(
        config,
        learning_rate=0.5,
        batch_size=1024,
        epochs=240,
        schedule="linear",
        weight_decay=4e-5,
        label_smoothing=0.1,
    )
