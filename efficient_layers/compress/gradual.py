# SPDX-License-Identifier: Apache-2.0
"""Gradual pruning: an optimiser that zeroes more and more weights while it trains the others."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from efficient_layers.compress import criteria
from efficient_layers.compress.keep_zeros import alive, masked, named, require, select, zeroing
from efficient_layers.compress.prune import Prune
from efficient_layers.compress.schedule import Polynomial

Masks = dict[str, Array]


class GradualState(NamedTuple):
    """`scores` are sums over steps, for methods that look at gradients; else empty."""

    step: Int[Array, ""]
    masks: Masks
    scores: dict[str, Array]
    inner: optax.OptState


def gradual(
    tx: optax.GradientTransformation,
    steps: Prune | Sequence[Prune],
    *,
    schedule: Polynomial | None = None,
) -> optax.GradientTransformationExtraArgs:
    """`tx`, but weights go as a schedule says; what is zero stays zero, to the last bit.

        tx = gradual(optax.adam(1e-3), Prune("**", sparsity=.9), schedule=polynomial(0, 1000))

    At a step that is due, the weights after this step's update are ranked and the lowest set to
    zero. Masks are in the state: they survive checkpoint and resume. Zeros that are there at
    `init` count and stay. Wrap it around the whole optimiser. An average of the weights over steps
    (EMA) is not masked by it: `apply_masks(opt_state, average)` does that.

    Methods: "magnitude"; "random"; "movement", which adds -g w up over all steps (Sanh et al.,
    2020, arXiv 2005.07683, section 3); "taylor", which adds (g w)^2 up.

    Differs from the papers: a pruned weight does not come back (its score is that of a zero). Use
    `rigl` where it should.

    Args:
      steps: the first that matches a module wins, as in `apply`.
      schedule: for steps that have none of their own.

    Reference: Zhu & Gupta, *To prune, or not to prune* (arXiv 1710.01878), section 3.

    Raises:
      ValueError: no schedule, a method or pattern that cannot be gradual; at `init`, a glob that
        matches no weights or a pattern that does not divide them; at `update`, no `params`.
    """
    inner = optax.with_extra_args_support(tx)
    given = [steps] if isinstance(steps, Prune) else list(steps)
    rules = [_checked(step, schedule) for step in given]

    def init(params: optax.Params) -> GradualState:
        chosen = {n: p for group in _groups(rules, params) for n, p in group.items()}
        masks = {name: alive(p) for name, p in chosen.items()}
        summed = {
            name
            for rule, group in zip(rules, _groups(rules, params), strict=True)
            for name in group
            if rule.method in _TERMS
        }
        scores = {name: jnp.zeros(chosen[name].shape) for name in summed}
        return GradualState(jnp.zeros((), jnp.int32), masks, scores, inner.init(params))

    def update(grads: Any, state: GradualState, params: Any = None, **extra: Any) -> Any:
        require(params, "gradual")
        updates, after = inner.update(masked(grads, state.masks), state.inner, params, **extra)
        old, g = named(params), named(grads)
        new = named(optax.apply_updates(params, updates))
        masks, scores = dict(state.masks), dict(state.scores)
        for rule, group in zip(rules, _groups(rules, params), strict=True):
            assert rule.schedule is not None
            if term := _TERMS.get(rule.method):
                scores |= {n: scores[n] + term(g[n], old[n]).astype(jnp.float32) for n in group}
            now = {n: masks[n] for n in group}
            masks |= jax.lax.cond(
                rule.schedule.due(state.step),
                lambda now, new, scores, step, rule=rule: _renewed(rule, now, new, scores, step),
                lambda now, *_: now,
                now,
                {n: new[n] for n in group},
                {n: scores[n] for n in group if n in scores},
                state.step,
            )
        updates = zeroing(updates, params, masks)
        return updates, GradualState(state.step + 1, masks, scores, after)

    return optax.GradientTransformationExtraArgs(init, update)


_TERMS = {"movement": lambda g, w: -g * w, "taylor": lambda g, w: (g * w) ** 2}


def _checked(step: Prune, schedule: Polynomial | None) -> Prune:
    step = dataclasses.replace(step, schedule=step.schedule or schedule)
    if step.schedule is None:
        raise ValueError(f"gradual: {step} has no schedule. Pass schedule=polynomial(begin, end).")
    if step.type is not None:
        raise ValueError(f"gradual sees arrays, not modules: narrow {step} by its glob, not type=.")
    if not step.share:
        raise ValueError(f"gradual: {step} prunes nothing: its sparsity is 0.")
    if step.method not in ("magnitude", "random", *_TERMS):
        raise ValueError(
            f"gradual ranks by magnitude, random, movement or taylor. Got {step.method!r}: "
            "prune with `apply` and train on with `keep_zeros`."
        )
    return step


def _groups(rules: list[Prune], params: Any) -> list[dict[str, Array]]:
    """The arrays of every rule; the first that matches wins."""
    taken: set[str] = set()
    groups = []
    for rule in rules:
        found = {n: p for n, p in select(params, rule.path).items() if n not in taken}
        for name, p in found.items():
            if why := rule.misfit(name, p.shape):
                raise ValueError(f"gradual: {rule} does not fit {name}: {why}.")
        taken |= set(found)
        groups.append(found)
    return groups


def _renewed(rule: Prune, now: Masks, new: Masks, scores: Masks, step: Array) -> Masks:
    """Masks for the sparsity of this step; what was zero is the first to go."""
    assert rule.schedule is not None
    if rule.method == "magnitude":
        scores = {name: criteria.magnitude(w) for name, w in new.items()}
    elif rule.method == "random":
        key = jax.random.key(rule.seed)
        scores = {name: criteria.drawn(name, w.shape, key) for name, w in new.items()}
    share = rule.schedule.sparsity(step, rule.share) / rule.share
    return rule.masks({name: now[name] for name in new}, scores, share)
