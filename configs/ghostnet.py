# SPDX-License-Identifier: Apache-2.0
"""GhostNet on ImageNet through TFDS `imagenet2012`, prepared by the user.

    python -m launch.train --config=configs/ghostnet.py:1.0 --workdir=runs/ghostnet \
        --config.data.data_dir=$TFDS_DATA_DIR --config.mesh=data:-1

Published top-1 accuracy (%) in `PUBLISHED`: arXiv 1911.11907, table 7.
The paper (section 4.2.1) takes ShuffleNetV2's settings but a rate of 0.4 for batch 1,024: SGD, a
linear fall, weight decay 4e-5, 240 epochs, label smoothing 0.1.
Not run here, where there is no ImageNet: `--smoke` and `--dry_run` prove that it starts.
"""

from ml_collections import ConfigDict

from configs.recipes.imagenet import choose, imagenet, sgd

VARIANTS = {
    "1.0": {"width": 1.0, "dropout_rate": 0.2},
    "0.5": {"width": 0.5, "dropout_rate": 0.2},
    "1.3": {"width": 1.3, "dropout_rate": 0.2},
}
PUBLISHED = {"1.0": 73.9, "0.5": 66.2, "1.3": 75.7}


def get_config(variant: str = "1.0") -> ConfigDict:
    """One of `VARIANTS`; every key is explained in efficient_layers/train/defaults.py."""
    fields = choose(VARIANTS, variant, "ghostnet")
    config = imagenet("ghostnet", fields)
    return sgd(
        config,
        learning_rate=0.4,
        batch_size=1024,
        epochs=240,
        schedule="linear",
        weight_decay=4e-5,
        label_smoothing=0.1,
    )
