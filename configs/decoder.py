# SPDX-License-Identifier: Apache-2.0
"""The modern decoder on the next byte: Shakespeare through TFDS, or Python's standard library.

    python -m launch.train --config=configs/decoder.py:shakespeare --workdir=runs/decoder \
        --config.data.data_dir=$TFDS_DATA_DIR
    python -m launch.train --config=configs/decoder.py:stdlib --workdir=runs/decoder_stdlib

No published number for this model on these corpora: nanoGPT's GPT-2 has 1.4697 nats (2.120 bits) a
character on Shakespeare with this recipe (configs/gpt2.py).
"""

from ml_collections import ConfigDict

from configs.recipes.imagenet import choose
from configs.recipes.language import corpus

VARIANTS = {
    "shakespeare": {
        "features": 384,
        "depth": 6,
        "num_heads": 6,
        "num_kv_heads": 6,
        "dropout_rate": 0.2,
    },
    "stdlib": {"features": 128, "depth": 2, "num_heads": 4, "num_kv_heads": 2},
}


def get_config(variant: str = "stdlib") -> ConfigDict:
    """ "shakespeare" (10.7 million parameters) or "stdlib" (minutes on two CPU cores)."""
    fields = choose(VARIANTS, variant, "decoder")
    if variant == "stdlib":
        config = corpus("decoder", fields, data="stdlib", length=128)
        config.data.batch_size = 16
        config.optimizer.learning_rate = 2e-3
        config.train.duration = "600 steps"
        config.train.eval_every = "300 steps"
        return config
    config = corpus("decoder", fields, data="tfds:tiny_shakespeare", length=256)
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule.warmup = "100 steps"
    config.train.duration = "5000 steps"
    config.train.eval_every = "250 steps"
    return config
