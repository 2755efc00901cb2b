# SPDX-License-Identifier: Apache-2.0
"""Files of weights: safetensors, read and written, or .npz. Nothing in them is ever executed."""

import os
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from efficient_layers.models.entries import Kind, arrays_of, check_kinds, fill, kinds_of

# What safetensors holds and its reader for JAX gives back.
_HELD = (
    *("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
    *("float16", "bfloat16", "float32", "float64", "complex64"),
)


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


def save_weights(model: nnx.Module, path: str | Path) -> None:
    """Writes every Variable of any model, compressed or not, to a safetensors file, by its path.

    Of tied modules one copy is written; a typed PRNG key as its integers; integers of fewer than 8
    bits, which the format does not know, as int8 or uint8 (the packed codes of our layers are uint8
    as they are). Torch names instead of paths: `export_torch`.

    Raises:
      ValueError: a name that does not end in .safetensors; a model without values; a dtype that
        the format does not hold.
    """
    from safetensors.numpy import save_file

    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"Weights are written to a file named *.safetensors. Got {path}.")
    arrays = {name: _widened(name, array) for name, array in arrays_of(model).items()}
    unfinished = path.with_name(path.name + ".unfinished")
    save_file(arrays, unfinished)
    os.replace(unfinished, path)


def load_weights(model: nnx.Module, path: str | Path) -> nnx.Module:
    """Fills `model`, which may be abstract, with what `save_weights` wrote; gives it back.

    Where anything does not fit, nothing is changed. The structure is not in the file: a compressed
    model is built first, by `el.compress.rebuild(base, log.edits)`.

    Raises:
      FileNotFoundError, ValueError: as `read_weights`; a number that its dtype does not hold.
      WeightsError: entries are missing, unexpected, or of another shape or dtype; all are listed.
    """
    arrays = read_weights(path)
    wanted = kinds_of(model)
    narrow = {name: kind for name, kind in wanted.items() if _stand_in(kind.dtype) != kind.dtype}
    found = {name: Kind(tuple(a.shape), str(a.dtype)) for name, a in arrays.items()}
    for name, kind in narrow.items():
        if name in found and found[name].dtype == _stand_in(kind.dtype):
            found[name] = found[name]._replace(dtype=kind.dtype)
    check_kinds(model, found, str(path))
    for name, kind in narrow.items():
        wide = arrays[name]
        arrays[name] = wide.astype(kind.dtype)
        if not np.array_equal(arrays[name].astype(wide.dtype), wide):
            raise ValueError(f"{path}: {name} holds numbers outside of {kind.dtype}.")
    fill(model, arrays)
    return model


def _stand_in(dtype: str) -> str:
    """The dtype in the file for one in a model: int4 -> int8."""
    kind = jnp.dtype(dtype)
    if jnp.issubdtype(kind, jnp.integer) and jnp.iinfo(kind).bits < 8:
        return "int8" if jnp.issubdtype(kind, jnp.signedinteger) else "uint8"
    return dtype


def _widened(name: str, array: np.ndarray) -> np.ndarray:
    wide = np.array(array, order="C").astype(_stand_in(str(array.dtype)), copy=False)
    if str(wide.dtype) not in _HELD:
        raise ValueError(
            f"{name} is of {wide.dtype}, which these files do not hold: "
            f"they hold {', '.join(_HELD)}. el.compress.save_packed takes any."
        )
    return wide
