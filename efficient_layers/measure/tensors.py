# SPDX-License-Identifier: Apache-2.0
"""The arrays in a model's state: whose they are, whether they count, what they occupy."""

from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

# Variables counted in `params`: these types and their subclasses, and classes of these names.
PARAM_TYPES: tuple[type, ...] = (nnx.Param,)
PARAM_NAMES = ("QuantParam",)
# Variables that no weight file holds.
PASSING_TYPES: tuple[type, ...] = (nnx.RngState, nnx.Cache, nnx.Intermediate, nnx.Perturbation)

ROOT = "(root)"


@dataclass(frozen=True)
class Tensor:
    """One array of the state: the row it belongs to and what it adds there."""

    row: str
    shape: tuple[int, ...]
    params: int
    weight_bytes: int
    passing: bool


def tensors_of(state: Any) -> list[Tensor]:
    """The state's arrays in the order of `jax.tree.leaves(state)`."""
    found, _ = jax.tree_util.tree_flatten_with_path(
        state, is_leaf=lambda node: isinstance(node, nnx.Variable)
    )
    tensors = []
    for path, node in found:
        keys = [str(getattr(key, "key", getattr(key, "name", key))) for key in path]
        row = "/".join(keys[:-1]) or ROOT
        passing = isinstance(node, PASSING_TYPES)
        for leaf in jax.tree.leaves(node):
            params = prod(_logical_shape(node) or leaf.shape) if _counted(node) else 0
            stored = 0 if passing else stored_bytes(leaf.shape, leaf.dtype)
            tensors.append(Tensor(row, tuple(leaf.shape), params, stored, passing))
    return tensors


def _counted(node: Any) -> bool:
    named = any(cls.__name__ in PARAM_NAMES for cls in type(node).__mro__)
    return isinstance(node, PARAM_TYPES) or named


def _logical_shape(node: Any) -> tuple[int, ...] | None:
    """Of what array a `QuantParam` is the packed form; None: the array is not packed."""
    return node.get_metadata("logical_shape", None) if isinstance(node, nnx.Variable) else None


def stored_bytes(shape: tuple[int, ...], dtype: Any) -> int:
    """Bytes that an array of `shape` occupies in a file: sub-byte integers are packed."""
    if jnp.issubdtype(dtype, jax.dtypes.extended):
        return prod(shape) * dtype.itemsize
    if jnp.issubdtype(dtype, jnp.integer):
        return -(-prod(shape) * jnp.iinfo(dtype).bits // 8)
    if jnp.issubdtype(dtype, jnp.floating):
        return -(-prod(shape) * jnp.finfo(dtype).bits // 8)
    return prod(shape) * jnp.dtype(dtype).itemsize
