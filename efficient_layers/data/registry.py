# SPDX-License-Identifier: Apache-2.0
"""From the name of a data set to its splits."""

import difflib
import inspect
from collections.abc import Callable
from functools import partial
from os import PathLike, fspath
from typing import Any

from efficient_layers.data.digits import load_digits
from efficient_layers.data.listops import load_listops
from efficient_layers.data.mnist1d import load_mnist1d
from efficient_layers.data.mqar import load_mqar
from efficient_layers.data.splits import Splits
from efficient_layers.data.stand_in import load_stand_in, load_text_stand_in, shortened
from efficient_layers.data.stdlib import load_stdlib
from efficient_layers.data.tfds import load_tfds
from efficient_layers.data.tfds_text import describe_text, load_tfds_text

TFDS = "tfds:"
BUNDLED: dict[str, Callable[..., Splits]] = {
    "digits": load_digits,
    "mnist1d": load_mnist1d,
    "listops": load_listops,
    "mqar": load_mqar,
    "stdlib": load_stdlib,
}
"""What needs no preparation: bundled, generated, or already on every machine."""


def load(
    name: str,
    *,
    data_dir: str | PathLike[str] | None = None,
    validation_fraction: float = 0.15,
    seed: int = 0,
    stand_in: bool = False,
    **options: Any,
) -> Splits:
    """Train, validation and test sources of a data set, and what is known about it.

    `name` is "digits", "mnist1d", "listops", "mqar", "stdlib", or "tfds:NAME[:VERSION]", prepared
    in `data_dir` (None: where TFDS looks by itself). Validation is carved out of train by `seed`.
    `stand_in=True` gives random images or tokens of the same shapes instead; those made on the spot
    are given as they are, with few examples held out. A TFDS data set takes more `options`:
    `test_split` (a name) and `cache` (keep what is decoded in RAM), images also `train_split` and
    `validation_split`, text `length` and `vocabulary_file`. The others take what their `load_...`
    names: `length`, sizes.

    Raises:
        MissingDataError: the data set is not prepared; the message has the command.
        ValueError: an unknown name or split, or a fraction that leaves a split empty.
        TypeError: an option this data set does not have.
    """
    directory = None if data_dir is None else fspath(data_dir)
    if name not in BUNDLED and not name.startswith(TFDS):
        raise ValueError(_unknown(name))
    if name in BUNDLED and not (stand_in and name == "digits"):
        splits = _bundled(name, validation_fraction, seed, options)
        return shortened(splits) if stand_in else splits
    features = None if name in BUNDLED else describe_text(name.removeprefix(TFDS), directory)
    if stand_in and features is None:
        return load_stand_in(name, data_dir=directory, seed=seed)
    bare = name.removeprefix(TFDS)
    if features is None:
        load_one: Callable[..., Splits] = load_tfds
    elif stand_in:
        texts = {key: options[key] for key in ("length", "vocabulary_file") if key in options}
        return load_text_stand_in(bare, features, seed=seed, **texts)
    else:
        load_one = partial(load_tfds_text, features=features)
    return load_one(
        bare,
        data_dir=directory,
        validation_fraction=validation_fraction,
        seed=seed,
        **options,
    )


def is_text(name: str, data_dir: str | None = None) -> bool:
    """Whether "tfds:NAME" is a data set of text, prepared or not."""
    return describe_text(name.removeprefix(TFDS), data_dir) is not None


def _bundled(name: str, fraction: float, seed: int, options: dict[str, Any]) -> Splits:
    """A data set that is here anyway, with those settings it has."""
    takes = inspect.signature(BUNDLED[name]).parameters
    free = any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes.values())
    if unknown := [] if free else sorted(options.keys() - takes.keys()):
        raise TypeError(f"{name!r} has fixed splits and no such options; got {unknown}.")
    shared = {"validation_fraction": fraction, "seed": seed}
    return BUNDLED[name](**{k: v for k, v in shared.items() if k in takes}, **options)


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, BUNDLED, n=1)
    guess = close[0] if close else f"{TFDS}{name}"
    return (
        f"Unknown data set {name!r}: expected {', '.join(BUNDLED)} or '{TFDS}NAME' for any "
        f"data set of TensorFlow Datasets. Did you mean {guess!r}?"
    )
