# SPDX-License-Identifier: Apache-2.0
"""Somebody else's model, looked at in eval mode without being touched.

Measuring, auditing, compressing and exporting all begin here: they work on a copy, and the module
they were handed is bit-equal and in the same mode afterwards.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

M = TypeVar("M", bound=nnx.Module)


class Pure(NamedTuple):
    """A model as a function: `apply(state, arrays)` is what `call(model, x)` returns.

    `state` is the model's (`{}` where the model is a plain function); `arrays` are the arrays in
    `x`.
    """

    apply: Callable[[Any, list], Any]
    state: Any
    arrays: list


def view(model: M) -> M:
    """A copy of `model` in eval mode. Arrays are shared (they are immutable), variables are not.

    Works on models that `nnx.eval_shape` made, whose leaves are `jax.ShapeDtypeStruct`.
    """
    graphdef, state = nnx.split(model)
    copy = nnx.merge(graphdef, state, copy=True)
    copy.eval()
    return copy


def call(model: Callable, x: Any) -> Any:
    """`model(*x)` for a tuple, `model(**x)` for a dict, else `model(x)`."""
    if isinstance(x, tuple):
        return model(*x)
    if isinstance(x, dict):
        return model(**x)
    return model(x)


def is_array(leaf: Any) -> bool:
    """Whether `leaf` of an input is an array or its shape and dtype. The rest is static."""
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct)


def pure(model: nnx.Module | Callable, x: Any) -> Pure:
    """The eval view of `model` as a function of its state and of the arrays in `x`.

    A module is split first, so its weights are arguments of the function, not constants in it.
    Whatever in `x` is no array (a flag, None) stays a static part of the call.
    """
    leaves, treedef = jax.tree.flatten(x)
    places = [place for place, leaf in enumerate(leaves) if is_array(leaf)]

    def rebuild(arrays: list) -> Any:
        filled = list(leaves)
        for place, array in zip(places, arrays, strict=True):
            filled[place] = array
        return jax.tree.unflatten(treedef, filled)

    arrays = [leaves[place] for place in places]
    if not isinstance(model, nnx.Module):
        return Pure(lambda _, arrays: call(model, rebuild(arrays)), {}, arrays)

    graphdef, state = nnx.split(view(model))

    def apply(state: Any, arrays: list) -> Any:
        return call(nnx.merge(graphdef, state, copy=True), rebuild(arrays))

    return Pure(apply, state, arrays)


def resized(x: Any, size: int) -> Any:
    """`x` with a leading axis of `size`: its rows, repeated as often as needed."""

    def resize(leaf: Any) -> Any:
        if not is_array(leaf) or leaf.ndim == 0:
            return leaf
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct((size, *leaf.shape[1:]), leaf.dtype)
        return jnp.take(jnp.asarray(leaf), np.arange(size) % leaf.shape[0], axis=0)

    return jax.tree.map(resize, x)
