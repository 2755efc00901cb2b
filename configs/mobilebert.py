# SPDX-License-Identifier: Apache-2.0
"""MobileBERT on GLUE's SST-2 (sentiment) through TFDS, from pretrained weights.

    python -m launch.train --config=configs/mobilebert.py:base --workdir=runs/mobilebert \
        --config.data.data_dir=$TFDS_DATA_DIR --config.init_from=model.safetensors \
        --config.data.vocabulary_file=vocab.txt

Published accuracy (%) in `PUBLISHED`: GLUE test, arXiv 2004.02984, table 4.
Recipe (section 4.3): the best of batches 16, 32, 48, rates 1e-5 to 1e-4, 2 to 10 epochs. Not run
here, where there are no pretrained weights.
"""

from typing import Any

from ml_collections import ConfigDict

from configs.recipes.imagenet import choose
from configs.recipes.language import sst2

VARIANTS: dict[str, Any] = {
    "base": {},
}
PUBLISHED = {"base": 92.8}


def get_config(variant: str = "base") -> ConfigDict:
    """One of `VARIANTS`; every key is explained in efficient_layers/train/defaults.py."""
    fields = choose(VARIANTS, variant, "mobilebert")
    return sst2("mobilebert", fields, learning_rate=5e-5, epochs=5)
