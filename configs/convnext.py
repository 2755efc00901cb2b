# SPDX-License-Identifier: Apache-2.0
"""ConvNeXt on ImageNet through TFDS `imagenet2012`, prepared by the user.

    python -m launch.train --config=configs/convnext.py:tiny --workdir=runs/convnext \
        --config.data.data_dir=$TFDS_DATA_DIR --config.mesh=data:-1

Published top-1 accuracy (%) in `PUBLISHED`: arXiv 2201.03545, table 1 (tiny to large); the small
ones as in arXiv 2301.00808's supervised rows (600 epochs).
The paper's recipe (table 5): AdamW, batch 4,096, rate 4e-3, weight decay 0.05, 20 epochs of warm-
up, cosine, 300 epochs, label smoothing 0.1, drop path by variant, averaged weights. Lacks:
RandAugment, mixup, cutmix, random erasing.
Not run here, where there is no ImageNet: `--smoke` and `--dry_run` prove that it starts.
"""

from ml_collections import ConfigDict

from configs.recipes.imagenet import adamw, choose, imagenet

VARIANTS = {
    "tiny": {"variant": "tiny", "drop_path_rate": 0.1},
    "small": {"variant": "small", "drop_path_rate": 0.4},
    "base": {"variant": "base", "drop_path_rate": 0.5},
    "large": {"variant": "large", "drop_path_rate": 0.5},
    "atto": {"variant": "atto", "drop_path_rate": 0.1},
    "femto": {"variant": "femto", "drop_path_rate": 0.1},
    "pico": {"variant": "pico", "drop_path_rate": 0.1},
    "nano": {"variant": "nano", "drop_path_rate": 0.1},
}
PUBLISHED = {
    "tiny": 82.1,
    "small": 83.1,
    "base": 83.8,
    "large": 84.3,
    "atto": 75.7,
    "femto": 77.5,
    "pico": 79.5,
    "nano": 80.8,
}


def get_config(variant: str = "tiny") -> ConfigDict:
    """One of `VARIANTS`; every key is explained in efficient_layers/train/defaults.py."""
    fields = choose(VARIANTS, variant, "convnext")
    config = imagenet("convnext", fields)
    config.train.ema_decay = 0.9999
    return adamw(config, learning_rate=4e-3, batch_size=4096, weight_decay=0.05, warmup="20 epochs")
