# SPDX-License-Identifier: Apache-2.0
"""Sentiment of GLUE (fine-tuning of a pretrained encoder), and language models on small corpora."""

from typing import Any

from ml_collections import ConfigDict

from efficient_layers.train.defaults import default_config


def sst2(
    model: str,
    fields: dict[str, Any],
    *,
    learning_rate: float,
    batch_size: int = 32,
    epochs: int = 3,
    warmup: str = "10%",
) -> ConfigDict:
    """SST-2, 128 tokens: AdamW, weight decay 0.01, a linear fall after the warm-up, norm 1.

    The published numbers are those of pretrained weights: give `--config.init_from` the model's
    safetensors and `--config.data.vocabulary_file` its vocab.txt. Without them this trains on bytes
    from nothing. The "test" is GLUE's validation split (its test labels are not public).
    """
    config = default_config()
    with config.unlocked():
        config.model = ConfigDict({"name": model, **fields})
    config.data.name = "tfds:glue/sst2"
    config.data.test_split = "validation"
    config.data.validation_fraction = 0.05
    config.data.length = 128
    config.data.batch_size = batch_size
    config.data.eval_batch_size = 64
    config.data.cache = True
    config.optimizer.learning_rate = learning_rate
    config.optimizer.weight_decay = 0.01
    config.optimizer.clip_norm = 1.0
    config.optimizer.schedule.name = "linear"
    config.optimizer.schedule.warmup = warmup
    config.train.duration = f"{epochs} epochs"
    return config


def corpus(model: str, fields: dict[str, Any], *, data: str, length: int) -> ConfigDict:
    """A model of the next byte: AdamW (0.9, 0.99), weight decay 0.1, norm 1, cosine to a tenth."""
    config = default_config()
    with config.unlocked():
        config.model = ConfigDict({"name": model, "max_length": length, **fields})
    config.data.name = data
    config.data.length = length
    config.data.validation_fraction = 0.005
    config.objective.name = "language_modelling"
    config.optimizer.weight_decay = 0.1
    config.optimizer.clip_norm = 1.0
    config.optimizer.options = ConfigDict({"b1": 0.9, "b2": 0.99})
    config.optimizer.schedule.final = 0.1
    config.train.checkpoint.best_metric = "bits_per_byte"
    config.train.checkpoint.best_mode = "min"
    return config
