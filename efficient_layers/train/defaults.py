# SPDX-License-Identifier: Apache-2.0
"""Every key a configuration may have, with its default. Files in `configs/` change values only.

A key that is not here is an error that names the nearest one. `--config.train.duration="5 epochs"`
overrides any of them on the command line.
"""

from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def default_config() -> ConfigDict:
    """The full tree of keys; locked, so a mistyped key fails at once."""
    config = ConfigDict()
    config.seed = 0  # weights, data order, dropout
    config.model = ConfigDict({"name": "mobilenet_v2"})  # and any field of that model
    config.init_from = ""  # a workdir, or a file of weights: fine-tune from there
    config.data = _data()
    config.objective = _objective()
    config.optimizer = _optimizer()
    config.sparsity = _sparsity()
    config.train = _train()
    config.mesh = "data:-1"  # or "data:4,fsdp:2"; -1 = the devices that are left
    config.sharding_rules = ()  # (regex of array names, "axis,-,axis"), first match decides
    config.fsdp_min_size = 2**16  # smaller arrays are kept whole on every device
    config.report = ConfigDict({"batches": (1, 16)})  # latency is measured at these batch sizes
    return config.lock()


def read_config(stored: dict[str, Any]) -> ConfigDict:
    """The configuration that a workdir's config.json holds; keys added since have defaults."""
    config = default_config()
    with config.unlocked():
        config.update(ConfigDict(stored))
    return config


def _data() -> ConfigDict:
    return ConfigDict(
        {
            # images: "digits", "tfds:NAME"; signals: "mnist1d"; tokens: "stdlib", "tfds:NAME" of
            # text, "listops", "mqar"
            "name": "digits",
            "data_dir": "",  # where TFDS data sets are prepared
            "test_split": "test",
            "validation_fraction": 0.15,  # carved from train where the data set has none
            "split_seed": 0,
            "batch_size": 64,  # over all devices
            "eval_batch_size": 256,
            "workers": 0,  # processes that decode and augment; 0 = threads
            "cache": False,  # keep decoded images in RAM
            "length": 128,  # tokens a row
            "vocabulary_file": "",  # text of TFDS: vocab.txt of a BERT; "" = bytes
            "options": ConfigDict(),  # of "listops" and "mqar", by name: pairs, max_depth, ...
            "image_size": 0,  # resize to this; 0 = as stored
            "mean": (),  # of pixels in 0..1, a number a channel; () = the data set's own
            "std": (),
            "crop": "none",  # "none", "pad" (zero-pad by `padding`, crop back), "random_resized"
            "padding": 0,
            "flip": False,
        }
    )


def _objective() -> ConfigDict:
    """An objective takes the settings it has; another one changed from here is an error."""
    return ConfigDict(
        {
            # or "language_modelling" (no settings), "masked_language_modelling"
            "name": "classification",
            "label_smoothing": 0.0,  # of classification
            "l2": 0.0,  # of classification
            "mask_rate": 0.15,  # of masked_language_modelling, as all below
            "mask_token": 257,  # the byte tokenizer's; 103 in BERT's vocabulary
            "special_tokens": (256, 257, 258),  # never hidden; (0, 100, 101, 102, 103) in BERT's
            "vocabulary": 256,  # random replacements are drawn below this
        }
    )


def _optimizer() -> ConfigDict:
    return ConfigDict(
        {
            "name": "adamw",
            "learning_rate": 1e-3,  # peak, for the whole batch
            "weight_decay": 0.0,
            "weight_decay_mask": "",  # regex of the names that decay; "" = kernels only
            "clip_norm": 0.0,  # global norm; 0 = off
            "schedule": _schedule(),
            "options": ConfigDict(),  # passed to optax by name
        }
    )


def _sparsity() -> ConfigDict:
    return ConfigDict(
        {
            # "gradual" prunes while it trains; "rigl" and "sparse_evolution" move zeros that are
            # there. "": nothing, but the zeros of pruned weights in `init_from` stay
            "name": "",
            "path": "**",  # glob of modules
            "sparsity": 0.8,  # of gradual: the share of zeros at its end
            "method": "magnitude",  # of gradual: or "movement", "taylor", "random"
            "distribution": "uniform",  # of gradual: or "erk", small arrays stay denser
            "begin": "10%",  # of gradual
            "end": "75%",
            "every": "100 steps",
            "power": 3.0,  # of gradual: the polynomial's
            "fraction": 0.3,  # of rigl, sparse_evolution: the share of the weights that moves
        }
    )


def _schedule() -> ConfigDict:
    """A placeholder is "not given": schedule.py says which shape takes which option."""
    return ConfigDict(
        {
            "name": "cosine",
            "warmup": "5%",
            "final": placeholder(float),
            "decay": placeholder(str),
            "shape": placeholder(str),
            "every": placeholder(str),
            "factor": placeholder(float),
            "boundaries": placeholder(tuple),
            "rate": placeholder(float),
            "staircase": placeholder(bool),
            "timescale": placeholder(str),
            "cooldown": placeholder(str),
        }
    )


def _train() -> ConfigDict:
    return ConfigDict(
        {
            "duration": "30 epochs",  # or "5000 steps", "200000 examples"
            "log_every": "20 steps",
            "log_to": (),  # besides metrics.jsonl: "tensorboard", "wandb" (the extra [logging])
            "eval_every": "1 epoch",
            "accumulate": 1,  # gradient accumulation: parts of a batch
            "ema_decay": 0.0,  # 0 = no averaged weights
            "precision": "params=f32,compute=f32,output=f32",
            "select": "last",  # which weights are tested: "last", or "best" by validation
            "guard": ConfigDict({"policy": "abort", "spike": 0.0, "patience": 10}),
            "checkpoint": ConfigDict(
                {
                    "temporary_every_s": 300.0,  # the newest of these is kept
                    "permanent_every": "20%",  # all of these are kept
                    "best_metric": "accuracy",  # of the validation split
                    "best_mode": "max",
                }
            ),
        }
    )
