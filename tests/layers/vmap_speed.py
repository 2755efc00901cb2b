# SPDX-License-Identifier: Apache-2.0
"""Run by `test_vmap_speed.py` in a process of its own, with the launchers' allocator.

python -m tests.layers.vmap_speed [CARD ...]

Each card of `docs/layers`, at its size, with gradients: `MEMBERS` sets of weights under vmap
against one call after another. (XLA alone would make grouped convolutions of it.)
"""

import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from efficient_layers import measure, ops
from efficient_layers.evidence.cards import CARDS
from efficient_layers.evidence.cards.card import Card
from efficient_layers.train.state import merge, split

MEMBERS = 2
NOISE = 1.5  # of the ratio: 0.5 to 1.3 on a quiet machine
ATTEMPTS = 3  # another program may take a core meanwhile: the best of so many counts


def main(names: list[str]) -> int:
    """Prints a line a card; the exit status is the number of cards that are slower together."""
    ops.keep_freed_memory()
    slow = 0
    for name in names or sorted(CARDS):
        sides = both_sides(CARDS[name])
        if sides is None:
            print(f"ok  {name} has no parameters to stack", flush=True)
            continue
        ratio, milliseconds = best(sides)
        slow += ratio > NOISE
        verdict = "BAD" if ratio > NOISE else "ok "
        print(f"{verdict} {name} {ratio:.2f} ({milliseconds:.2f} ms)", flush=True)
        jax.clear_caches()
    return slow


def both_sides(card: Card) -> dict[str, Callable] | None:
    """Gradients of all members by one call, and by a call a member; None without parameters."""
    module = card.sides[0].make(nnx.Rngs(0))
    module.eval()
    graphdef, params, rest = split(module)
    if not params:
        return None
    x = card.input()

    def loss(params: dict, x: jax.Array) -> jax.Array:
        return (merge(graphdef, params, rest)(x) ** 2).sum()

    gradient = jax.grad(loss, (0, 1) if card.vocabulary is None else (0,))
    single = jax.jit(gradient)
    together = jax.jit(jax.vmap(gradient, (0, None)))
    members = jax.tree.map(lambda v: jnp.stack([v] * MEMBERS), params)
    return {
        "vmap": lambda: together(members, x),
        "loop": lambda: [single(params, x) for _ in range(MEMBERS)],
    }


def best(sides: dict[str, Callable]) -> tuple[float, float]:
    """vmap's time over the loop's, and its milliseconds, in the attempt kindest to vmap."""
    attempts = []
    for _ in range(ATTEMPTS):
        times = measure.alternate(sides, calls=7)
        vmap, loop = times["vmap"].p10_ms, times["loop"].p10_ms
        attempts.append((vmap / loop, vmap))
        if vmap <= NOISE * loop:
            break
    return min(attempts)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
