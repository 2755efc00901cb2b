# SPDX-License-Identifier: Apache-2.0
"""A model, an objective and batches small enough to check by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from efficient_layers import train
from efficient_layers.train.step import step


class Net(nnx.Module):
    """Dense, BatchNorm, dropout, dense."""

    def __init__(self, *, norm: bool = True, rate: float = 0.0, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(4, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs) if norm else None
        self.dropout = nnx.Dropout(rate)
        self.head = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x: jax.Array, *, rngs: nnx.Rngs | None = None) -> jax.Array:
        x = self.hidden(x)
        x = x if self.norm is None else self.norm(x)
        return self.head(self.dropout(jax.nn.relu(x), rngs=rngs))


def objective(model, batch, rngs):
    logits = model(batch["x"], rngs=rngs)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
    mask = batch.get("mask", jnp.ones_like(losses))
    loss = (losses * mask).sum() / mask.sum()
    return loss, {"cross_entropy": loss}


def batch(size: int = 8, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "x": rng.normal(size=(size, 4)).astype(np.float32),
        "label": rng.integers(0, 3, size).astype(np.int32),
    }


def start(net: Net, tx=None, **options):
    """(state, jitted step, graphdef) for `net`."""
    tx = tx or optax.sgd(0.1)
    net.train()
    graphdef, params, rest = train.split(net)
    state = train.TrainState.create(params, rest, tx, ema=options.get("ema_decay", 0) > 0)
    return state, jax.jit(step(objective, tx, graphdef, **options)), graphdef
