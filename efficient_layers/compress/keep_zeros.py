# SPDX-License-Identifier: Apache-2.0
"""An optimiser under which weights that were pruned stay exactly zero, and what masks share."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool

from efficient_layers.compress.patterns import is_weight
from efficient_layers.models.paths import pattern

Masks = dict[str, Array]


class KeepZerosState(NamedTuple):
    """Masks by the path of the array, and the state of the optimiser inside."""

    masks: Masks
    inner: optax.OptState


def keep_zeros(
    tx: optax.GradientTransformation, path: str | None = None
) -> optax.GradientTransformationExtraArgs:
    """`tx`, but entries that are exactly zero at `init` stay so: u = mask * tx(mask * g).

    The masks are part of the state: a checkpoint holds them, and after a resume the same entries
    are zero. Gradients are masked too, so moments, norms and clipping see the network as it is.
    Wrap it around the whole optimiser: what comes behind it could move a zero.

    By default every array of two or more dimensions is looked at. One that is zero as a whole (the
    second factor of a fresh `LoRALinear`) counts as not trained yet and is left alone.

    Args:
      path: glob of modules; of those that match, all zeros are kept, whole arrays included.

    Raises:
      ValueError: at `init`, a glob that matches no array; at `update`, no `params`.
    """
    inner = optax.with_extra_args_support(tx)

    def init(params: optax.Params) -> KeepZerosState:
        chosen = _weights(params) if path is None else select(params, path)
        masks = {n: alive(p) if path is None else p != 0 for n, p in chosen.items()}
        return KeepZerosState(masks, inner.init(params))

    def update(grads: Any, state: KeepZerosState, params: Any = None, **extra: Any) -> Any:
        updates, after = inner.update(masked(grads, state.masks), state.inner, params, **extra)
        return masked(updates, state.masks), KeepZerosState(state.masks, after)

    return optax.GradientTransformationExtraArgs(init, update)


def apply_masks(opt_state: optax.OptState, params: optax.Params) -> optax.Params:
    """`params`, or an average of them, with zeros where the masks in an optimiser's state say so.

    For averages over steps (EMA): where `gradual`, `rigl` or `sparse_evolution` zeroed a weight,
    they still hold a share of what it was.

    Raises:
      ValueError: a state without masks.
    """

    states = _with_masks(opt_state)
    if not states:
        raise ValueError(
            "apply_masks expects the state of keep_zeros, gradual, rigl or sparse_evolution. "
            f"Got {type(opt_state).__name__} without masks."
        )
    for state in states:
        params = masked(params, state.masks)
    return params


def has_masks(opt_state: optax.OptState) -> bool:
    """Whether an optimiser's state holds masks for `apply_masks`."""
    return bool(_with_masks(opt_state))


def _with_masks(opt_state: optax.OptState) -> list[Any]:
    def holds(node: Any) -> bool:
        return isinstance(node, tuple) and isinstance(getattr(node, "masks", None), dict)

    return [s for s in jax.tree.leaves(opt_state, is_leaf=holds) if holds(s)]


def alive(w: Array) -> Bool[Array, "..."]:
    """Where an array is not zero; everywhere, if all of it is zero (not trained yet)."""
    return (w != 0) | (w == 0).all()


def select(params: Any, path: str) -> dict[str, Array]:
    """The float arrays of two or more dimensions of modules that a glob matches, by name.

    Raises:
      ValueError: there is none.
    """
    glob = pattern(path)
    chosen = {n: p for n, p in _weights(params).items() if glob.fullmatch(n.rpartition("/")[0])}
    if not chosen:
        known = ", ".join(sorted({name.rpartition("/")[0] for name in named(params)})[:20])
        raise ValueError(f"{path!r} matches no weights of two or more dimensions. Modules: {known}")
    return chosen


def _weights(params: Any) -> dict[str, Array]:
    return {name: p for name, p in named(params).items() if is_weight(name, p)}


def named(tree: Any) -> dict[str, Any]:
    """The leaves of a tree of parameters by name, "blocks/0/conv/kernel"."""
    return {name_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def name_of(path: tuple[Any, ...]) -> str:
    """A key path as a name, without the `value` of an `nnx.Variable` at its end."""
    keys = path[:-1] if path and path[-1] == jax.tree_util.GetAttrKey("value") else path
    return jax.tree_util.keystr(keys, simple=True, separator="/")


def masked(tree: Any, masks: Mapping[str, Array]) -> Any:
    """`tree`, zero where its mask is False; leaves without a mask as they are."""

    def one(path: tuple[Any, ...], leaf: Array) -> Array:
        mask = masks.get(name_of(path))
        return leaf if mask is None else jnp.where(mask, leaf, 0)

    return jax.tree_util.tree_map_with_path(one, tree)


def zeroing(updates: Any, params: Any, masks: Mapping[str, Array]) -> Any:
    """`updates`, and -p where the mask is False: p + (-p) is exactly 0."""

    def one(path: tuple[Any, ...], update: Array, p: Array) -> Array:
        mask = masks.get(name_of(path))
        return update if mask is None else jnp.where(mask, update, -p)

    return jax.tree_util.tree_map_with_path(one, updates, params)


def require(params: Any, wrapper: str) -> None:
    """Raises ValueError where `update` was called without parameters."""
    if params is None:
        raise ValueError(f"{wrapper} needs the parameters: tx.update(grads, state, params).")
