# SPDX-License-Identifier: Apache-2.0
"""DistilBERT on GLUE's SST-2 (sentiment) through TFDS, from pretrained weights.

    python -m launch.train --config=configs/distilbert.py:base --workdir=runs/distilbert \
        --config.data.data_dir=$TFDS_DATA_DIR --config.init_from=model.safetensors \
        --config.data.vocabulary_file=vocab.txt

Published accuracy (%) in `PUBLISHED`: GLUE dev, arXiv 1910.01108, table 1.
Recipe: as BERT's (the paper gives none of its own): batch 32, 3 epochs, 5e-5. Not run here, where
there are no pretrained weights.
"""

from typing import Any

from ml_collections import ConfigDict

from configs.recipes.imagenet import choose
from configs.recipes.language import sst2

VARIANTS: dict[str, Any] = {
    "base": {},
}
PUBLISHED = {"base": 91.3}


def get_config(variant: str = "base") -> ConfigDict:
    """One of `VARIANTS`; every key is explained in efficient_layers/train/defaults.py."""
    fields = choose(VARIANTS, variant, "distilbert")
    return sst2("distilbert", fields, learning_rate=5e-5)
