# SPDX-License-Identifier: Apache-2.0
"""Lottery tickets: what was pruned late goes back to what it was early, and trains again."""

from collections.abc import Iterator

import jax.numpy as jnp
from flax import nnx

from efficient_layers.compress.prune import own_weights
from efficient_layers.models.paths import modules


def rounds(sparsity: float, count: int) -> Iterator[float]:
    """Sparsities of `count` rounds, each of which prunes the same share of what is left.

        s_i = 1 - (1 - sparsity)^(i / count)

    >>> [round(s, 3) for s in rounds(0.488, 3)]
    [0.2, 0.36, 0.488]

    Raises:
      ValueError: a sparsity outside [0, 1), a count below 1.
    """
    if not 0 <= sparsity < 1 or count < 1:
        raise ValueError(f"rounds expects sparsity in [0, 1), count >= 1. Got {sparsity}, {count}.")
    return (1 - (1 - sparsity) ** (i / count) for i in range(1, count + 1))


def rewind(pruned: nnx.Module, early: nnx.Module) -> nnx.Module:
    """`early` with the zeros of `pruned`: w = mask * w_early, mask = (w_pruned != 0).

    Biases, norms and their statistics are those of `early` too. Iterative magnitude pruning is

        model, early = create(), None
        for sparsity in rounds(.9, 10):
            ...                                   # train with keep_zeros; `early` after k steps
            model, _ = apply(model, [Prune("**", sparsity=sparsity)])
            model = rewind(model, early)

    with the initial model as `early` (Frankle & Carbin), or the model after some steps (Frankle et
    al., which works for deeper networks).

    Reference: Frankle & Carbin, *The Lottery Ticket Hypothesis* (arXiv 1803.03635), section 1;
    Frankle et al., *Stabilizing the Lottery Ticket Hypothesis* (arXiv 1903.01611), section 3.

    Raises:
      ValueError: the two have weights at different paths or of different shapes.
    """
    ticket = nnx.merge(*nnx.split(early), copy=True)
    found, wanted = _weights(pruned), _weights(ticket)
    for name in sorted(found.keys() ^ wanted.keys()):
        where = "pruned" if name in found else "early"
        raise ValueError(f"rewind expects two models of one structure. {name} is in {where} alone.")
    for name, variable in wanted.items():
        late = found[name][...]
        if late.shape != variable.shape:
            raise ValueError(
                f"rewind expects equal shapes. {name}: {late.shape} pruned, {variable.shape} early."
            )
        variable.set_value(jnp.where(late != 0, variable[...], 0).astype(variable.dtype))
    return ticket


def _weights(model: nnx.Module) -> dict[str, nnx.Param]:
    owners = [*modules(model), ("", model)]
    return {
        name: variable for path, module in owners for name, variable in own_weights(path, module)
    }
