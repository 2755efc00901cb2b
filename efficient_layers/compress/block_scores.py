# SPDX-License-Identifier: Apache-2.0
"""What whole residual blocks are worth: the lowest go first.

    last        the order of the calls, from the end    (Sajjad et al., arXiv 2004.03844, "top")
    similarity  1 - cos(x, y) of a block's input x and output y along the last axis, mean over
                positions and batches: its influence    (Men et al., arXiv 2403.03853, eq. 1)
    taylor      mean over batches of (d loss / d g)^2, with x + g (y - x) for y, at g = 1
                                                        (Molchanov et al., arXiv 1906.10771, sec. 3)
    loss        by how much the loss rises when this block alone is removed, mean over batches

The last two run one compiled program with a gate g a block.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from efficient_layers.compress.hooks import Hook, hooked
from efficient_layers.compress.technique import Context
from efficient_layers.measure.view import call

NEEDS: Mapping[str, frozenset[str]] = {
    "similarity": frozenset({"data"}),
    "taylor": frozenset({"data", "loss"}),
    "loss": frozenset({"data", "loss"}),
    "last": frozenset(),
}


def block_scores(criterion: str, context: Context, paths: Sequence[str]) -> dict[str, float]:
    """A score a block; `paths` in the order of their calls.

    Raises:
      ValueError: data without a batch; scores that are not finite.
    """
    if criterion == "last":
        return {path: float(len(paths) - place) for place, path in enumerate(paths, 1)}
    found = (
        _influence(context, paths)
        if criterion == "similarity"
        else _by_gates(criterion, context, paths)
    )
    if not found:
        raise ValueError(f"{criterion}: `data` holds no batch.")
    for path, score in found.items():
        if not np.isfinite(score):
            raise ValueError(
                f"{criterion}: the score of {path} is {score}. Look for NaN or infinity in "
                "weights, `data` and `loss`."
            )
    return found


def _influence(context: Context, paths: Sequence[str]) -> dict[str, float]:
    seen: dict[str, list[float]] = {path: [] for path in paths}

    def watching(path: str) -> Hook:
        def hook(call: Callable, *args: Any, **kwargs: Any) -> Any:
            x, y = args[0] if args else kwargs["x"], call(*args, **kwargs)
            value = 1 - _cosine(x, y).mean()
            # A callback, not a list: what is seen inside a remat is a tracer.
            jax.debug.callback(lambda v: seen[path].append(float(v)), value)
            return y

        return hook

    graphdef, state = nnx.split(hooked(context.model, {path: watching(path) for path in paths}))

    @jax.jit
    def run(state: Any, batch: Any) -> Any:
        model = nnx.merge(graphdef, state, copy=True)
        return call(model, batch) if context.loss is None else context.loss(model, batch)

    for batch in context.data:
        jax.block_until_ready(run(state, batch))
    jax.effects_barrier()
    return {path: float(np.mean(values)) for path, values in seen.items() if values}


def _cosine(x: Float[Array, "*b d"], y: Float[Array, "*b d"]) -> Float[Array, "*b"]:
    if x.shape != y.shape:  # a last block that computes the first token alone
        x = x[tuple(slice(n) for n in y.shape)]
    x, y = x.astype(jnp.float32), y.astype(jnp.float32)
    norms = jnp.linalg.norm(x, axis=-1) * jnp.linalg.norm(y, axis=-1)
    return (x * y).sum(-1) / jnp.maximum(norms, jnp.finfo(jnp.float32).tiny)


def _by_gates(criterion: str, context: Context, paths: Sequence[str]) -> dict[str, float]:
    gates: list[Any] = [None]  # of the trace at work

    def gated(index: int) -> Hook:
        def hook(call: Callable, *args: Any, **kwargs: Any) -> Any:
            x, y = args[0] if args else kwargs["x"], call(*args, **kwargs)
            x = x[tuple(slice(n) for n in y.shape)]
            return x + gates[0][index].astype(y.dtype) * (y - x)

        return hook

    hooks = {path: gated(index) for index, path in enumerate(paths)}
    graphdef, state = nnx.split(hooked(context.model, hooks))

    def loss(values: Float[Array, "blocks"], state: Any, batch: Any) -> Array:
        gates[0] = values
        assert context.loss is not None
        return context.loss(nnx.merge(graphdef, state, copy=True), batch)

    program = jax.jit(jax.grad(loss) if criterion == "taylor" else loss)
    measure = partial(_squares if criterion == "taylor" else _rises, program, state, len(paths))
    rows = [measure(batch) for batch in context.data]
    return dict(zip(paths, np.mean(rows, axis=0).tolist(), strict=True)) if rows else {}


def _squares(program: Callable, state: Any, count: int, batch: Any) -> np.ndarray:
    return np.square(np.asarray(program(np.ones(count, np.float32), state, batch), np.float64))


def _rises(program: Callable, state: Any, count: int, batch: Any) -> np.ndarray:
    cases = [np.ones(count, np.float32), *(1 - np.eye(count, dtype=np.float32))]
    whole, *without = (float(program(gates, state, batch)) for gates in cases)
    return np.asarray(without) - whole
