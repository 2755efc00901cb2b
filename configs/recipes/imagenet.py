# SPDX-License-Identifier: Apache-2.0
"""ImageNet through TFDS `imagenet2012`, prepared by the user, and the optimisers of its papers.

What the pipeline has: random resized crop, flip, label smoothing, averaged weights, drop path. What
it lacks, and a file of `configs/` names where its recipe has it: AutoAugment, RandAugment, mixup,
cutmix, random erasing, repeated augmentation, sampling at several sizes.
"""

from typing import Any

from ml_collections import ConfigDict

from efficient_layers.train.defaults import default_config


def choose(variants: dict[str, Any], name: str, file: str) -> Any:
    """The entry of a file's table, or an error that lists the names."""
    if name not in variants:
        raise ValueError(f"configs/{file}.py:{name}: choose one of {', '.join(variants)}")
    return variants[name]


def imagenet(model: str, fields: dict[str, Any], *, image_size: int = 224) -> ConfigDict:
    """Data, augmentation, precision and logging; an optimiser is chosen by one of those below."""
    config = default_config()
    with config.unlocked():
        config.model = ConfigDict({"name": model, **fields})
    config.data.name = "tfds:imagenet2012"
    config.data.test_split = "validation"  # the test labels are not public
    config.data.validation_fraction = 0.01
    config.data.batch_size = 1024
    config.data.eval_batch_size = 1024
    config.data.workers = 16
    config.data.image_size = image_size
    config.data.mean = (0.485, 0.456, 0.406)
    config.data.std = (0.229, 0.224, 0.225)
    config.data.crop = "random_resized"
    config.data.flip = True
    config.train.log_every = "100 steps"
    config.train.eval_every = "1 epoch"
    config.train.precision = "params=f32,compute=bf16,output=f32"
    config.train.checkpoint.permanent_every = "10%"
    return config


def rmsprop(
    config: ConfigDict,
    *,
    learning_rate: float,
    batch_size: int,
    decay: float,
    every: str,
    epochs: int,
    weight_decay: float = 1e-5,
    eps: float = 1e-3,
) -> ConfigDict:
    """Google's mobile networks: RMSProp (0.9, momentum 0.9), stairs, averaged weights."""
    config.data.batch_size = batch_size
    config.objective.label_smoothing = 0.1
    config.optimizer.name = "rmsprop"
    config.optimizer.learning_rate = learning_rate
    config.optimizer.weight_decay = weight_decay
    config.optimizer.options = ConfigDict({"decay": 0.9, "momentum": 0.9, "eps": eps})
    config.optimizer.schedule.name = "exponential"
    config.optimizer.schedule.warmup = "5 epochs"
    config.optimizer.schedule.rate = decay
    config.optimizer.schedule.every = every
    config.optimizer.schedule.staircase = True
    config.train.duration = f"{epochs} epochs"
    config.train.ema_decay = 0.9999
    return config


def sgd(
    config: ConfigDict,
    *,
    learning_rate: float,
    batch_size: int,
    epochs: int,
    schedule: str,
    weight_decay: float,
    warmup: str = "0%",
    label_smoothing: float = 0.0,
) -> ConfigDict:
    """SGD with momentum 0.9; `schedule` "step" divides the rate by 10 every 30 epochs."""
    config.data.batch_size = batch_size
    config.objective.label_smoothing = label_smoothing
    config.optimizer.name = "momentum"
    config.optimizer.learning_rate = learning_rate
    config.optimizer.weight_decay = weight_decay
    config.optimizer.schedule.name = schedule
    config.optimizer.schedule.warmup = warmup
    if schedule == "step":
        config.optimizer.schedule.every = "30 epochs"
    config.train.duration = f"{epochs} epochs"
    return config


def adamw(
    config: ConfigDict,
    *,
    learning_rate: float,
    batch_size: int,
    weight_decay: float,
    warmup: str,
    epochs: int = 300,
    schedule: str = "cosine",
    label_smoothing: float = 0.1,
) -> ConfigDict:
    """AdamW with a long warm-up: transformers and what was trained like them."""
    config.data.batch_size = batch_size
    config.objective.label_smoothing = label_smoothing
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = learning_rate
    config.optimizer.weight_decay = weight_decay
    config.optimizer.schedule.name = schedule
    config.optimizer.schedule.warmup = warmup
    config.train.duration = f"{epochs} epochs"
    return config
