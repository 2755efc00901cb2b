# SPDX-License-Identifier: Apache-2.0
"""MnasNet on ImageNet through TFDS `imagenet2012`, prepared by the user.

    python -m launch.train --config=configs/mnasnet.py:b1 --workdir=runs/mnasnet \
        --config.data.data_dir=$TFDS_DATA_DIR --config.mesh=data:-1

Published top-1 accuracy (%) in `PUBLISHED`: arXiv 1807.11626, table 1 (a1, b1); arXiv 1905.02244,
table 3 (small).
The paper's recipe (section 5): RMSProp, momentum 0.9, batch 4,096, five epochs of warm-up to
0.256, 3 % less every 2.4 epochs, weight decay 1e-5, dropout 0.2, 350 epochs.
Not run here, where there is no ImageNet: `--smoke` and `--dry_run` prove that it starts.
"""

from ml_collections import ConfigDict

from configs.recipes.imagenet import choose, imagenet, rmsprop

VARIANTS = {
    "a1": {"variant": "a1", "dropout_rate": 0.2},
    "b1": {"variant": "b1", "dropout_rate": 0.2},
    "small": {"variant": "small", "dropout_rate": 0.2},
}
PUBLISHED = {"a1": 75.2, "b1": 74.5, "small": 64.9}


def get_config(variant: str = "b1") -> ConfigDict:
    """One of `VARIANTS`; every key is explained in efficient_layers/train/defaults.py."""
    fields = choose(VARIANTS, variant, "mnasnet")
    config = imagenet("mnasnet", fields)
    return rmsprop(
        config, learning_rate=0.256, batch_size=4096, decay=0.97, every="2.4 epochs", epochs=350
    )
