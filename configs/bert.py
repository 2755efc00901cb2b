# SPDX-License-Identifier: Apache-2.0
"""BERT on GLUE's SST-2 (sentiment) through TFDS, from pretrained weights.

    python -m launch.train --config=configs/bert.py:tiny --workdir=runs/bert \
        --config.data.data_dir=$TFDS_DATA_DIR --config.init_from=model.safetensors \
        --config.data.vocabulary_file=vocab.txt

Published accuracy (%) in `PUBLISHED`: GLUE test; the miniatures from google-research/bert's
README (arXiv 1908.08962), base and large from arXiv 1810.04805, table 1.
Recipe: batch 32; base and large 3 epochs at the best of 2e-5 to 5e-5 (section 4.1), the
miniatures 4 epochs at the best of 3e-5 to 3e-4. Not run here, where there are no pretrained
weights.
"""

from ml_collections import ConfigDict

from configs.recipes.imagenet import choose
from configs.recipes.language import sst2

VARIANTS = {
    "tiny": {"depth": 2, "features": 128, "num_heads": 2},
    "mini": {"depth": 4, "features": 256, "num_heads": 4},
    "small": {"depth": 4, "features": 512, "num_heads": 8},
    "medium": {"depth": 8, "features": 512, "num_heads": 8},
    "base": {"depth": 12, "features": 768, "num_heads": 12},
    "large": {"depth": 24, "features": 1024, "num_heads": 16},
}
PUBLISHED = {"tiny": 83.2, "mini": 85.9, "small": 89.7, "medium": 89.6, "base": 93.5, "large": 94.9}


def get_config(variant: str = "tiny") -> ConfigDict:
    """One of `VARIANTS`; every key is explained in efficient_layers/train/defaults.py."""
    fields = choose(VARIANTS, variant, "bert")
    return sst2(
        "bert",
        fields,
        learning_rate=3e-5 if variant in ("base", "large") else 1e-4,
        epochs=3 if variant in ("base", "large") else 4,
    )
