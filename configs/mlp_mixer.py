# SPDX-License-Identifier: Apache-2.0
"""MLP-Mixer on ImageNet through TFDS `imagenet2012`, prepared by the user.

    python -m launch.train --config=configs/mlp_mixer.py:base_16 --workdir=runs/mlp_mixer \
        --config.data.data_dir=$TFDS_DATA_DIR --config.mesh=data:-1

Published top-1 accuracy (%) in `PUBLISHED`: arXiv 2105.01601, table 3 (from nothing, 224 x 224).
The paper's recipe (section 3 and table 5): Adam with decoupled decay 0.1, batch 4,096, rate 1e-3,
10,000 steps of warm-up, a linear fall, norm 1, drop path 0.1, 300 epochs. Lacks: RandAugment,
mixup.
Not run here, where there is no ImageNet: `--smoke` and `--dry_run` prove that it starts.
"""

from ml_collections import ConfigDict

from configs.recipes.imagenet import adamw, choose, imagenet

VARIANTS = {
    "base_16": {"variant": "base", "patch_size": 16, "drop_path_rate": 0.1},
    "large_16": {"variant": "large", "patch_size": 16, "drop_path_rate": 0.1},
}
PUBLISHED = {"base_16": 76.44, "large_16": 71.76}


def get_config(variant: str = "base_16") -> ConfigDict:
    """One of `VARIANTS`; every key is explained in efficient_layers/train/defaults.py."""
    fields = choose(VARIANTS, variant, "mlp_mixer")
    config = imagenet("mlp_mixer", fields)
    config.optimizer.clip_norm = 1.0
    return adamw(
        config,
        learning_rate=1e-3,
        batch_size=4096,
        weight_decay=0.1,
        warmup="10000 steps",
        schedule="linear",
        label_smoothing=0.0,
    )
