# SPDX-License-Identifier: Apache-2.0
"""ALBERT on GLUE's SST-2 (sentiment) through TFDS, from pretrained weights.

    python -m launch.train --config=configs/albert.py:base --workdir=runs/albert \
        --config.data.data_dir=$TFDS_DATA_DIR --config.init_from=model.safetensors \
        --config.data.vocabulary_file=vocab.txt

Published accuracy (%) in `PUBLISHED`: GLUE dev, arXiv 1909.11942, table 2 (v1; google-
research/albert's README has 92.9, 94.9, 95.4, 96.8 for v2).
Recipe (table 14): batch 32, rate 1e-5, 20,935 steps, the first 1,256 of them warm-up. ALBERT's
own vocabulary is SentencePiece, which is not read here: bytes or a WordPiece file instead, so the
published number is out of reach. Not run here, where there are no pretrained weights.
"""

from ml_collections import ConfigDict

from configs.recipes.imagenet import choose
from configs.recipes.language import sst2

VARIANTS = {
    "base": {"features": 768, "num_heads": 12, "mlp_features": 3072},
    "large": {"features": 1024, "num_heads": 16, "mlp_features": 4096, "depth": 24},
    "xlarge": {"features": 2048, "num_heads": 16, "mlp_features": 8192, "depth": 24},
    "xxlarge": {"features": 4096, "num_heads": 64, "mlp_features": 16384, "depth": 12},
}
PUBLISHED = {"base": 90.3, "large": 91.7, "xlarge": 92.4, "xxlarge": 95.2}


def get_config(variant: str = "base") -> ConfigDict:
    """One of `VARIANTS`; every key is explained in efficient_layers/train/defaults.py."""
    fields = choose(VARIANTS, variant, "albert")
    return sst2("albert", fields, learning_rate=1e-5, epochs=10, warmup="6%")
