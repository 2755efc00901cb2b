# SPDX-License-Identifier: Apache-2.0
"""The state of a run: flat dictionaries of arrays, nothing else.

`split` takes a module apart into its static graph and two dictionaries `path -> array`
(`"blocks/0/expand/conv/kernel"`), `merge` puts it together again. Plain dictionaries flatten in
C++, name their entries for sharding rules, masks and checkpoints, and hold no Python objects.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int

Arrays = dict[str, Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GuardState:
    """What the non-finite guard remembers between steps."""

    loss_mean: Float[Array, ""]  # running mean of accepted losses, for the spike test
    seen: Int[Array, ""]  # accepted steps so far
    bad_in_a_row: Int[Array, ""]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything a step changes; a pytree of arrays that is donated to each step.

    `ema` holds the averaged parameters *and* statistics by the same paths, or is empty.
    """

    step: Int[Array, ""]
    params: Arrays
    rest: Arrays
    opt_state: optax.OptState
    ema: Arrays
    guard: GuardState

    @classmethod
    def create(
        cls, params: Arrays, rest: Arrays, tx: optax.GradientTransformation, *, ema: bool = False
    ) -> "TrainState":
        """The state before step 1. Pure: may run under `jax.jit` or `jax.eval_shape`."""
        # Counters are distinct arrays: a donated buffer must not appear twice.
        guard = GuardState(jnp.zeros(()), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))
        average = {path: jnp.array(value) for path, value in (params | rest).items()} if ema else {}
        return cls(jnp.zeros((), jnp.int32), params, rest, tx.init(params), average, guard)


def template(state: Any, shardings: Any = None) -> Any:
    """Shapes, dtypes and places of `state` (arrays, or abstract with `shardings`), no numbers."""
    if shardings is None:
        shardings = jax.tree.map(lambda x: x.sharding, state)
    return jax.tree.map(
        lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), state, shardings
    )


def split(model: nnx.Module) -> tuple[nnx.GraphDef, Arrays, Arrays]:
    """(graph, parameters, the rest), the last two as `path -> array`.

    Raises ValueError for a module that holds RNG state: randomness comes in with the call.
    """
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)  # type: ignore[misc]
    flat = _flat(rest)
    keys = [
        path for path, value in flat.items() if jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
    ]
    if keys:
        raise ValueError(
            "a model must not hold RNG state (it would be stored and shared between steps); "
            f"got {keys[:4]}. Build dropout without rngs and pass `rngs` to the call instead."
        )
    return graphdef, _flat(params), flat


def merge(graphdef: nnx.GraphDef, *parts: Arrays) -> Any:
    """The module whose arrays are given by path; its Variables are new."""
    arrays: Any = {_key(path): value for part in parts for path, value in part.items()}
    return nnx.merge(graphdef, nnx.from_flat_state(arrays), copy=True)


def _flat(state: nnx.State) -> Arrays:
    return {"/".join(map(str, path)): leaf.get_value() for path, leaf in nnx.to_flat_state(state)}


def _key(path: str) -> tuple[str | int, ...]:
    return tuple(int(part) if part.isdigit() else part for part in path.split("/"))
