# SPDX-License-Identifier: Apache-2.0
"""MobileViT on ImageNet through TFDS `imagenet2012`, prepared by the user.

    python -m launch.train --config=configs/mobilevit.py:xxs --workdir=runs/mobilevit \
        --config.data.data_dir=$TFDS_DATA_DIR --config.mesh=data:-1

Published top-1 accuracy (%) in `PUBLISHED`: arXiv 2110.02178, table of section 4.1.
The paper's recipe (section 4.1): AdamW, batch 1,024, 3,000 steps of warm-up to 2e-3, cosine to a
tenth, weight decay 0.01, label smoothing 0.1, 300 epochs, crop and flip, averaged weights. Lacks:
batches at several image sizes (160 to 320).
Not run here, where there is no ImageNet: `--smoke` and `--dry_run` prove that it starts.
"""

from ml_collections import ConfigDict

from configs.recipes.imagenet import adamw, choose, imagenet

VARIANTS = {
    "xxs": {"variant": "xxs", "dropout_rate": 0.1},
    "xs": {"variant": "xs", "dropout_rate": 0.1},
    "s": {"variant": "s", "dropout_rate": 0.1},
}
PUBLISHED = {"xxs": 69.0, "xs": 74.8, "s": 78.4}


def get_config(variant: str = "xxs") -> ConfigDict:
    """One of `VARIANTS`; every key is explained in efficient_layers/train/defaults.py."""
    fields = choose(VARIANTS, variant, "mobilevit")
    config = imagenet("mobilevit", fields, image_size=256)
    config.optimizer.schedule.final = 0.1
    config.train.ema_decay = 0.9995
    return adamw(
        config, learning_rate=2e-3, batch_size=1024, weight_decay=0.01, warmup="3000 steps"
    )
