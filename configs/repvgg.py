# SPDX-License-Identifier: Apache-2.0
"""RepVGG on ImageNet through TFDS `imagenet2012`, prepared by the user.

    python -m launch.train --config=configs/repvgg.py:a0 --workdir=runs/repvgg \
        --config.data.data_dir=$TFDS_DATA_DIR --config.mesh=data:-1

Published top-1 accuracy (%) in `PUBLISHED`: arXiv 2101.03697, table 4.
The paper's recipe (section 4.1): SGD with momentum 0.9, batch 256, rate 0.1 falling along a
cosine over 120 epochs, weight decay 1e-4, crop and flip.
Not run here, where there is no ImageNet: `--smoke` and `--dry_run` prove that it starts.
"""

from ml_collections import ConfigDict

from configs.recipes.imagenet import choose, imagenet, sgd

VARIANTS = {
    "a0": {"variant": "a0"},
    "a1": {"variant": "a1"},
    "a2": {"variant": "a2"},
}
PUBLISHED = {"a0": 72.41, "a1": 74.46, "a2": 76.48}


def get_config(variant: str = "a0") -> ConfigDict:
    """One of `VARIANTS`; every key is explained in efficient_layers/train/defaults.py."""
    fields = choose(VARIANTS, variant, "repvgg")
    config = imagenet("repvgg", fields)
    return sgd(
        config,
        learning_rate=0.1,
        batch_size=256,
        epochs=120,
        schedule="cosine",
        weight_decay=1e-4,
    )
