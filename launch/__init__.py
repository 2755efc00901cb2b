# SPDX-License-Identifier: Apache-2.0
"""Entry points: absl flags in, library calls out. `python -m launch.NAME --help`."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ml_collections import ConfigDict


def quiet() -> None:
    """Warnings only, unless --verbosity says otherwise: not every step of Orbax and XLA."""
    from absl import flags, logging  # here: the doctor also runs where absl is missing

    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)


def read_config(spec: str) -> "ConfigDict":
    """What `get_config` of a file gives: "configs/x.py" or, with an argument, "configs/x.py:b3".

    Raises:
      ValueError: there is no such file, or it has no `get_config`.
    """
    path, colon, argument = spec.partition(":")
    if not Path(path).is_file():
        raise ValueError(f"{path} is not there: expected a configuration file, FILE.py[:ARGUMENT].")
    made = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert made is not None
    assert made.loader is not None
    module = importlib.util.module_from_spec(made)
    made.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise ValueError(f"{path} has no get_config().")
    config: ConfigDict = module.get_config(argument) if colon else module.get_config()
    return config
