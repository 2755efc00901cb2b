# SPDX-License-Identifier: Apache-2.0
"""vmap over weights costs no more than one call a member (XLA alone would make a grouped conv).

Sizes are those of the cards in `docs/layers`, with gradients, two members.
"""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from efficient_layers import measure
from efficient_layers.evidence.cards import CARDS
from efficient_layers.train.state import merge, split

MEMBERS = 2
NOISE = 1.6  # quiet and with ops.keep_freed_memory: 0.8 to 1.3; without: fresh pages, up to 1.5


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CARDS))
def test_members_together_are_no_slower_than_one_by_one(name: str) -> None:
    card = CARDS[name]
    module = card.sides[0].make(nnx.Rngs(0))
    module.eval()
    graphdef, params, rest = split(module)
    if not params:
        pytest.skip("no parameters to stack")
    x = card.input()

    def loss(params: dict, x: jax.Array) -> jax.Array:
        return (merge(graphdef, params, rest)(x) ** 2).sum()

    gradient = jax.grad(loss, (0, 1) if card.vocabulary is None else (0,))
    single = jax.jit(gradient)
    together = jax.jit(jax.vmap(gradient, (0, None)))
    members = jax.tree.map(lambda v: jnp.stack([v] * MEMBERS), params)
    times = measure.alternate(
        {
            "vmap": lambda: together(members, x),
            "loop": lambda: [single(params, x) for _ in range(MEMBERS)],
        },
        calls=7,
    )
    assert times["vmap"].p10_ms <= NOISE * times["loop"].p10_ms
