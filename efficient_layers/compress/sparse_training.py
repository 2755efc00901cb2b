# SPDX-License-Identifier: Apache-2.0
"""Training that is sparse from the first step: weights go, others grow, their number stays."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from efficient_layers.compress import criteria
from efficient_layers.compress.keep_zeros import alive, masked, named, require, select, zeroing
from efficient_layers.compress.patterns import lowest

Masks = dict[str, Array]
# (name, gradient, step) -> scores of the weights that may grow; the highest do.
Growth = Callable[[str, Array, Array], Array]


class SparseTrainingState(NamedTuple):
    step: Int[Array, ""]
    masks: Masks
    inner: optax.OptState


def rigl(
    tx: optax.GradientTransformation,
    path: str = "**",
    *,
    every: int = 100,
    end: int,
    fraction: float = 0.3,
) -> optax.GradientTransformationExtraArgs:
    """RigL: of each array the weights nearest to zero go, those of the largest gradient grow.

    Every `every` steps until `end`, with A active weights,

        k = A * fraction / 2 (1 + cos(pi t / end))

    go by |w|, and k of the others by |g|, one just dropped among them, grow from 0. The network is
    as sparse as the parameters are at `init`; begin with

        model, _ = apply(model, [Prune("**", sparsity=.9, method="random", distribution="erk")])

    Differs from the paper: the weights that stay take their ordinary step at these steps too, so
    that schedules of `tx` count on; moments of weights that grow again are not reset (they decay
    while the weight is zero).

    Reference: Evci et al., *Rigging the Lottery: Making All Tickets Winners* (arXiv 1911.11134),
    section 3, algorithm 1.

    Args:
      path: glob of modules; their float arrays of two or more dimensions.
      end: no weights go or grow from this step on; the paper takes 3/4 of training.

    Raises:
      ValueError: settings out of range; at `init`, a glob that matches no weights, or weights
        without a zero among them; at `update`, no `params`.
    """

    def by_gradient(name: str, gradient: Array, step: Array) -> Array:
        return jnp.abs(gradient.astype(jnp.float32))

    def decayed(step: Array) -> Float[Array, ""]:
        return fraction / 2 * (1 + jnp.cos(math.pi * step / end))

    _check(every, end, fraction)
    return _regrowing(tx, path, every, end, decayed, by_gradient)


def sparse_evolution(
    tx: optax.GradientTransformation,
    path: str = "**",
    *,
    every: int = 100,
    end: int | None = None,
    fraction: float = 0.3,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """SET: as `rigl`, but k = A * fraction throughout, and what grows is drawn at random.

    Differs from the paper: the weights nearest to zero go, whatever their sign (there, a share of
    either sign), every `every` steps (there, every epoch); new weights start at 0, and one just
    dropped may be drawn.

    Reference: Mocanu et al., *Scalable training of artificial neural networks with adaptive sparse
    connectivity inspired by network science* (arXiv 1707.04780), section 3.

    Raises:
      ValueError: as `rigl`.
    """

    def at_random(name: str, gradient: Array, step: Array) -> Array:
        key = jax.random.fold_in(jax.random.key(seed), step)
        return criteria.drawn(name, gradient.shape, key)

    _check(every, end, fraction)
    constant = jnp.float32(fraction)
    return _regrowing(tx, path, every, end, lambda step: constant, at_random)


def _check(every: int, end: int | None, fraction: float) -> None:
    if every < 1 or (end is not None and end < 1):
        raise ValueError(f"Regrowth expects every and end of at least 1. Got {every=}, {end=}.")
    if not 0 < fraction < 1:
        raise ValueError(f"Regrowth expects a fraction in (0, 1). Got {fraction}.")


def _regrowing(
    tx: optax.GradientTransformation,
    path: str,
    every: int,
    end: int | None,
    fraction: Callable[[Array], Array],
    growth: Growth,
) -> optax.GradientTransformationExtraArgs:
    inner = optax.with_extra_args_support(tx)

    def init(params: optax.Params) -> SparseTrainingState:
        masks = {name: alive(p) for name, p in select(params, path).items()}
        concrete = not any(isinstance(mask, jax.core.Tracer) for mask in masks.values())
        if concrete and all(bool(mask.all()) for mask in masks.values()):
            raise ValueError(
                f"Of the weights that {path!r} matches none is zero. Begin with "
                "Prune(path, sparsity=.9, method='random', distribution='erk')."
            )
        return SparseTrainingState(jnp.zeros((), jnp.int32), masks, inner.init(params))

    def update(grads: Any, state: SparseTrainingState, params: Any = None, **extra: Any) -> Any:
        require(params, "Regrowth")
        updates, after = inner.update(masked(grads, state.masks), state.inner, params, **extra)
        updates = masked(updates, state.masks)  # a weight that grows starts at 0
        step, g, w = state.step, named(grads), named(params)
        due = (step > 0) & (step % every == 0)
        due = due & (step < end) if end is not None else due

        def regrown(masks: Masks) -> Masks:
            return {
                name: _exchanged(mask, w[name], growth(name, g[name], step), fraction(step))
                for name, mask in masks.items()
            }

        masks = jax.lax.cond(due, regrown, lambda masks: masks, state.masks)
        updates = zeroing(updates, params, masks)
        return updates, SparseTrainingState(step + 1, masks, after)

    return optax.GradientTransformationExtraArgs(init, update)


def _exchanged(mask: Array, w: Array, scores: Array, fraction: Array) -> Array:
    """The mask after k = fraction * active weights went and as many grew."""
    flat = mask.ravel()
    k = jnp.floor(fraction * flat.sum()).astype(jnp.int32)
    size = jnp.where(flat, criteria.magnitude(w).ravel(), jnp.inf)
    stay = flat & ~lowest(size, k)
    grow = lowest(jnp.where(stay, jnp.inf, -scores.ravel()), k)
    return (stay | grow).reshape(mask.shape)
