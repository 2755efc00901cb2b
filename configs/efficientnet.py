# SPDX-License-Identifier: Apache-2.0
"""EfficientNet and EfficientNet-Lite on ImageNet through TFDS `imagenet2012`, prepared by the user.

    python -m launch.train --config=configs/efficientnet.py:b0 --workdir=runs/efficientnet \
        --config.data.data_dir=$TFDS_DATA_DIR --config.mesh=data:-1

Published top-1 accuracy (%) in `PUBLISHED`: arXiv 1905.11946, table 2; tensorflow/tpu,
efficientnet/lite/README.md.
The paper's recipe (section 5.2): RMSProp, momentum 0.9, 3 % less every 2.4 epochs from 0.256,
batch 4,096, weight decay 1e-5, dropout as in each variant, drop path to 0.2, 350 epochs. Lacks:
AutoAugment.
Not run here, where there is no ImageNet: `--smoke` and `--dry_run` prove that it starts.
"""

from ml_collections import ConfigDict

from configs.recipes.imagenet import choose, imagenet, rmsprop

VARIANTS = {
    "b0": {"variant": "b0", "drop_path_rate": 0.2},
    "b1": {"variant": "b1", "drop_path_rate": 0.2},
    "b2": {"variant": "b2", "drop_path_rate": 0.2},
    "b3": {"variant": "b3", "drop_path_rate": 0.2},
    "b4": {"variant": "b4", "drop_path_rate": 0.2},
    "b5": {"variant": "b5", "drop_path_rate": 0.2},
    "b6": {"variant": "b6", "drop_path_rate": 0.2},
    "b7": {"variant": "b7", "drop_path_rate": 0.2},
    "lite0": {"variant": "lite0", "drop_path_rate": 0.2},
    "lite1": {"variant": "lite1", "drop_path_rate": 0.2},
    "lite2": {"variant": "lite2", "drop_path_rate": 0.2},
    "lite3": {"variant": "lite3", "drop_path_rate": 0.2},
    "lite4": {"variant": "lite4", "drop_path_rate": 0.2},
}
PUBLISHED = {
    "b0": 77.1,
    "b1": 79.1,
    "b2": 80.1,
    "b3": 81.6,
    "b4": 82.9,
    "b5": 83.6,
    "b6": 84.0,
    "b7": 84.3,
    "lite0": 75.1,
    "lite1": 76.7,
    "lite2": 77.6,
    "lite3": 79.8,
    "lite4": 81.5,
}
IMAGE_SIZE = {
    "b0": 224,
    "b1": 240,
    "b2": 260,
    "b3": 300,
    "b4": 380,
    "b5": 456,
    "b6": 528,
    "b7": 600,
    "lite0": 224,
    "lite1": 240,
    "lite2": 260,
    "lite3": 280,
    "lite4": 300,
}


def get_config(variant: str = "b0") -> ConfigDict:
    """One of `VARIANTS`; every key is explained in efficient_layers/train/defaults.py."""
    fields = choose(VARIANTS, variant, "efficientnet")
    config = imagenet("efficientnet", fields, image_size=IMAGE_SIZE[variant])
    return rmsprop(
        config, learning_rate=0.256, batch_size=4096, decay=0.97, every="2.4 epochs", epochs=350
    )
