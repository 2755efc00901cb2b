# SPDX-License-Identifier: Apache-2.0
"""pQRNN on GLUE's SST-2 (sentiment) through TFDS, from nothing, on bytes.

    python -m launch.train --config=configs/pqrnn.py --workdir=runs/pqrnn \
        --config.data.data_dir=$TFDS_DATA_DIR

No published number fits: arXiv 2101.08890 (table 1) reports parsing of mTOP and MultiATIS, whose
data TFDS does not have, with a teacher. Its tokens are hashed words; those here are bytes, or the
pieces of `--config.data.vocabulary_file`. Recipe of our own: AdamW, 1e-3, batch 64, 10 epochs.
"""

from ml_collections import ConfigDict

from configs.recipes.imagenet import choose
from configs.recipes.language import sst2

VARIANTS = {"base": {}, "small": {"features": 128, "state_features": 64, "depth": 2}}


def get_config(variant: str = "base") -> ConfigDict:
    """One of `VARIANTS`; every key is explained in efficient_layers/train/defaults.py."""
    fields = choose(VARIANTS, variant, "pqrnn")
    return sst2("pqrnn", fields, learning_rate=1e-3, batch_size=64, epochs=10)
