# SPDX-License-Identifier: Apache-2.0
"""Everything a model holds by its path ("blocks/0/conv/kernel"): out of it, and back bit for bit.

What is under several names (a tied module) is one entry, under the first. A typed PRNG key is held
by its integers, `jax.random.key_data`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from efficient_layers.models.torch_weights import WeightsError

# dtype of a typed PRNG key -> its implementation's name; an abstract key does not tell it.
_KEYS = {"key<fry>": "threefry2x32", "key<rbg>": "rbg", "key<urbg>": "unsafe_rbg"}


class Kind(NamedTuple):
    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


def arrays_of(model: nnx.Module) -> dict[str, np.ndarray]:
    """Path -> array, on the host, of every Variable: statistics, integers and RNG state, too.

    Raises:
      ValueError: an entry without a value (an abstract model); two with the same path.
    """
    values = {path: _value(leaf) for path, leaf in _leaves(model).items()}
    empty = [path for path, v in values.items() if isinstance(v, jax.ShapeDtypeStruct)]
    if empty:
        raise ValueError(f"{type(model).__name__} has no values yet: {', '.join(empty)}.")
    return {p: np.asarray(jax.random.key_data(v) if _is_key(v) else v) for p, v in values.items()}


def kinds_of(model: nnx.Module) -> dict[str, Kind]:
    """Path -> shape and dtype of what `arrays_of` gives; the model may be abstract."""
    kinds = {}
    for path, leaf in _leaves(model).items():
        value = _value(leaf)
        held = jax.eval_shape(jax.random.key_data, value) if _is_key(value) else value
        kinds[path] = Kind(tuple(held.shape), str(held.dtype))
    return kinds


def check_kinds(model: nnx.Module, found: Mapping[str, Kind], where: str) -> None:
    """That `found`, what the file `where` has, is what `model` holds.

    Raises:
      WeightsError: entries are missing, unexpected, or of another shape or dtype; all are listed.
    """
    expected, lines = kinds_of(model), []
    for path, kind in expected.items():
        if path not in found:
            lines.append(f"{path}: missing; expects {kind}")
        elif found[path] != kind:
            lines.append(f"{path}: {found[path]}; expects {kind}")
    lines += [f"{path}: unexpected {kind}" for path, kind in found.items() if path not in expected]
    if lines:
        raise WeightsError(
            f"{where} does not fit {type(model).__name__}: {len(lines)} of "
            f"{len({*expected, *found})} entries differ. A compressed model is built by "
            "el.compress.rebuild(base, log.edits) before it is filled.\n  " + "\n  ".join(lines)
        )


def fill(model: nnx.Module, arrays: Mapping[str, Any]) -> None:
    """Puts arrays that `check_kinds` let through into `model`, where its own ones lie."""
    filled = []
    for path, leaf in nnx.to_flat_state(nnx.state(model)):
        new = _placed(arrays["/".join(map(str, path))], _value(leaf))
        filled.append((path, leaf.replace(new) if isinstance(leaf, nnx.Variable) else new))
    nnx.update(model, nnx.from_flat_state(filled))


def _placed(array: Any, old: Any) -> jax.Array:
    """`array` as a JAX array, a key where `old` is one, spread over devices as `old` is."""
    new = jnp.asarray(array)
    if _is_key(old):
        new = jax.random.wrap_key_data(new, impl=_KEYS[str(old.dtype)])
    sharding = getattr(old, "sharding", None)
    spread = sharding is not None and len(sharding.device_set) > 1
    return jax.device_put(new, sharding) if spread else new


def _leaves(model: nnx.Module) -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for parts, leaf in nnx.to_flat_state(nnx.state(model)):
        path = "/".join(map(str, parts))
        if path in leaves:
            raise ValueError(f"Entries need distinct paths. Got {path!r} twice: a '/' in a name?")
        if not hasattr(_value(leaf), "dtype"):
            raise ValueError(f"{path} expects an array. Got {type(_value(leaf)).__name__}.")
        leaves[path] = leaf
    return leaves


def _value(leaf: Any) -> Any:
    return leaf.get_value() if isinstance(leaf, nnx.Variable) else leaf


def _is_key(value: Any) -> bool:
    return jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key)
