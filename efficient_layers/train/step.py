# SPDX-License-Identifier: Apache-2.0
"""The ordinary training step, built from an objective and an optax chain.

    step(state, batch, key) -> (state, metrics)

Techniques that need another step (SAM, DARTS, mutual learning) bring their own with this
signature; the loop does not know the difference.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Bool

from efficient_layers.train.state import Arrays, GuardState, TrainState, merge, split

Batch = dict[str, Array]
Metrics = dict[str, Array]
Objective = Callable[[Any, Batch, nnx.Rngs | None], tuple[Array, Metrics]]
Step = Callable[[TrainState, Batch, Array], tuple[TrainState, Metrics]]


@dataclasses.dataclass(frozen=True)
class Guard:
    """What happens at a non-finite loss or gradient, and at a spike of the loss.

    `policy`: "abort" stops the run, "skip" drops the update and goes on (until `patience` bad
    steps in a row), "rollback" restores the last checkpoint and goes on with later data,
    "off" does not look. A bad update is never applied, whatever the policy but "off".
    `spike`: a loss above `spike` times its running mean counts as bad; 0 turns this off.
    """

    policy: str = "abort"
    spike: float = 0.0
    patience: int = 10

    def __post_init__(self) -> None:
        if self.policy not in ("abort", "skip", "rollback", "off"):
            raise ValueError(
                f"guard policy must be abort, skip, rollback or off; got {self.policy!r}"
            )


def step(
    objective: Objective,
    tx: optax.GradientTransformation,
    graphdef: nnx.GraphDef,
    *,
    schedule: optax.Schedule | None = None,
    accumulate: int = 1,
    ema_decay: float = 0.0,
    guard: Guard = Guard(),
) -> Step:
    """The training step for the module `graphdef` describes (in train mode).

    Args:
      accumulate: gradients of this many equal parts of the batch are averaged by a scan. Equal to
        the large batch to rounding, but for BatchNorm, which normalises each part by itself.
      ema_decay: decay of the averaged weights, warmed up as min(decay, (1 + t) / (10 + t));
        0 keeps none.

    The step's randomness is `fold_in(key, state.step)`: the same after a resume.
    Metrics: the objective's, and loss, learning_rate, grad_norm, param_norm, update_norm,
    accepted (1 or 0), and grad_norms, one number a parameter in the order of sorted paths.
    """

    def gradients(params: Arrays, rest: Arrays, batch: Batch, key: Array) -> tuple[Any, ...]:
        def loss(params: Arrays) -> tuple[Array, tuple[Metrics, Arrays]]:
            model = merge(graphdef, params, rest)
            value, metrics = objective(model, batch, nnx.Rngs(default=key))
            return value, ({**metrics, "loss": value}, split(model)[2])

        (_, (metrics, rest)), grads = jax.value_and_grad(loss, has_aux=True)(params)
        return grads, metrics, rest

    def apply(state: TrainState, grads: Arrays, rest: Arrays) -> tuple[TrainState, Metrics]:
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = _averaged(state, params | rest, ema_decay)
        new = dataclasses.replace(state, params=params, rest=rest, opt_state=opt_state, ema=ema)
        norms = {"param_norm": optax.tree.norm(params), "update_norm": optax.tree.norm(updates)}
        return new, norms

    def keep(state: TrainState, grads: Arrays, rest: Arrays) -> tuple[TrainState, Metrics]:
        del grads, rest
        return state, {"param_norm": optax.tree.norm(state.params), "update_norm": jnp.zeros(())}

    def run(state: TrainState, batch: Batch, key: Array) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(key, state.step)
        if accumulate == 1:
            grads, metrics, rest = gradients(state.params, state.rest, batch, key)
        else:
            grads, metrics, rest = _accumulated(gradients, state, batch, key, accumulate)
        norms = jnp.stack(
            [jnp.linalg.norm(grads[path].astype(jnp.float32)) for path in sorted(grads)]
        )
        metrics |= {"grad_norms": norms, "grad_norm": jnp.linalg.norm(norms)}
        if schedule is not None:
            metrics["learning_rate"] = jnp.asarray(schedule(state.step), jnp.float32)
        accept, memory = _judged(state.guard, metrics, guard)
        if guard.policy == "off":
            new, sizes = apply(state, grads, rest)
        else:
            # A branch, not a select an array: a quarter less to compile, and no slower.
            new, sizes = jax.lax.cond(accept, apply, keep, state, grads, rest)
        metrics |= {
            **sizes,
            "accepted": accept.astype(jnp.float32),
            "bad_in_a_row": memory.bad_in_a_row.astype(jnp.float32),
        }
        return dataclasses.replace(new, step=state.step + 1, guard=memory), metrics

    return run


def _accumulated(
    gradients: Callable[..., tuple[Any, ...]],
    state: TrainState,
    batch: Batch,
    key: Array,
    parts: int,
) -> tuple[Arrays, Metrics, Arrays]:
    """Mean gradients and metrics over `parts`; part i holds examples i, i + parts, ...

    The stride keeps every example on the device it came to: the sharded axis is not cut.
    """
    size = next(iter(batch.values())).shape[0]
    if size % parts:
        raise ValueError(f"accumulate={parts} must divide the batch size; got {size}")
    stacked = jax.tree.map(
        lambda x: x.reshape(size // parts, parts, *x.shape[1:]).swapaxes(0, 1), batch
    )

    def body(carry: tuple[Any, ...], part: tuple[Batch, Array]) -> tuple[tuple[Any, ...], None]:
        totals, rest = carry
        grads, metrics, rest = gradients(
            state.params, rest, part[0], jax.random.fold_in(key, part[1])
        )
        return (jax.tree.map(jnp.add, totals, (grads, metrics)), rest), None

    first = jax.eval_shape(
        gradients, state.params, state.rest, jax.tree.map(lambda x: x[0], stacked), key
    )
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), first[:2])
    (totals, rest), _ = jax.lax.scan(body, (zeros, state.rest), (stacked, jnp.arange(parts)))
    grads, metrics = jax.tree.map(lambda total: total / parts, totals)
    return grads, metrics, rest


def _averaged(state: TrainState, new: Arrays, decay: float) -> Arrays:
    if not state.ema:
        return {}
    time = state.step.astype(jnp.float32)
    decay_now = jnp.minimum(decay, (1 + time) / (10 + time))

    def average(old: Array, value: Array) -> Array:
        if not jnp.issubdtype(old.dtype, jnp.floating):
            return value
        return (old + (1 - decay_now) * (value - old)).astype(old.dtype)

    return {path: average(old, new[path]) for path, old in state.ema.items()}


def _judged(
    memory: GuardState, metrics: Metrics, guard: Guard
) -> tuple[Bool[Array, ""], GuardState]:
    """Whether the update is good, and the guard's memory after it."""
    if guard.policy == "off":
        return jnp.ones((), bool), memory
    loss = metrics["loss"].astype(jnp.float32)
    accept = jnp.isfinite(loss) & jnp.isfinite(metrics["grad_norm"])
    if guard.spike:
        # Ten accepted losses make a mean worth comparing with.
        accept &= (memory.seen < 10) | (loss <= guard.spike * memory.loss_mean)
    weight = jnp.where(memory.seen == 0, 1.0, 0.05)
    mean = memory.loss_mean + weight * (loss - memory.loss_mean)
    return accept, GuardState(
        loss_mean=jnp.where(accept, mean, memory.loss_mean),
        seen=memory.seen + accept,
        bad_in_a_row=jnp.where(accept, 0, memory.bad_in_a_row + 1),
    )
