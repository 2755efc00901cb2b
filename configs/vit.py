# SPDX-License-Identifier: Apache-2.0
"""DeiT (a ViT without more data) on ImageNet through TFDS `imagenet2012`, prepared by the user.

    python -m launch.train --config=configs/vit.py:deit_tiny --workdir=runs/vit \
        --config.data.data_dir=$TFDS_DATA_DIR --config.mesh=data:-1

Published top-1 accuracy (%) in `PUBLISHED`: arXiv 2012.12877, table 7.
The paper's recipe (table 9): AdamW, batch 1,024, rate 5e-4 x batch / 512, weight decay 0.05, 5
epochs of warm-up, cosine, 300 epochs, label smoothing 0.1, drop path 0.1. Lacks: RandAugment,
mixup, cutmix, random erasing, repeated augmentation, without which base overfits; and a teacher
for the distilled ones (74.5, 81.2, 83.4).
Not run here, where there is no ImageNet: `--smoke` and `--dry_run` prove that it starts.
"""

from ml_collections import ConfigDict

from configs.recipes.imagenet import adamw, choose, imagenet

VARIANTS = {
    "deit_tiny": {"variant": "tiny", "drop_path_rate": 0.1},
    "deit_small": {"variant": "small", "drop_path_rate": 0.1},
    "deit_base": {"variant": "base", "drop_path_rate": 0.1},
}
PUBLISHED = {"deit_tiny": 72.2, "deit_small": 79.9, "deit_base": 81.8}


def get_config(variant: str = "deit_tiny") -> ConfigDict:
    """One of `VARIANTS`; every key is explained in efficient_layers/train/defaults.py."""
    fields = choose(VARIANTS, variant, "vit")
    config = imagenet("vit", fields)
    return adamw(config, learning_rate=1e-3, batch_size=1024, weight_decay=0.05, warmup="5 epochs")
