# SPDX-License-Identifier: Apache-2.0
"""Reads a file of weights: safetensors or .npz. Nothing in it is ever executed."""

from pathlib import Path
from typing import Any

import numpy as np


def read_weights(path: str | Path) -> dict[str, Any]:
    """Name -> array, as stored.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: another format; a damaged file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No file of weights at {path}.")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.flax import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is no whole safetensors file: {error}.") from error
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    raise ValueError(
        f"Weights are read from .safetensors or .npz. Got {path}. A pickle (.pt, .pth, .bin) can "
        "run any code and is never read: write it anew with "
        "safetensors.torch.save_file(state_dict, path)."
    )
