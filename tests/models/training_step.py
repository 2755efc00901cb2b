# SPDX-License-Identifier: Apache-2.0
"""One step of SGD on the same weights and batch, ours and torch's."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import efficient_layers as el
from tests.models.published import load, relative_error

RATE, MOMENTUM = 0.1, 0.9


def check_training_step(ours, theirs, x, x_torch, y, *, tolerance=2e-3, source=None, run=None):
    """Equal losses; then equal parameters and running statistics, relative to a tensor's largest.

    Args:
      ours: gets the weights of theirs; nothing in it may be dropped at random, nor in theirs.
      theirs: randomised; its parameters are those of `source`.
      y: classes, int32: (b,), or of any shape that the logits have before their last axis.
      run: their module, their input -> their logits; None calls it.
    """
    torch = load("torch")
    assert el.models.load_torch(ours, theirs.state_dict(), source=source) == []
    theirs.train()
    optimizer = torch.optim.SGD(theirs.parameters(), lr=RATE, momentum=MOMENTUM)
    logits = theirs(x_torch) if run is None else run(theirs, x_torch)
    expected = torch.nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), torch.from_numpy(y).long().reshape(-1)
    )
    expected.backward()
    optimizer.step()
    loss = _step(ours, x, jnp.asarray(y))
    assert loss == pytest.approx(expected.item(), rel=1e-4)
    updated = theirs.state_dict()
    for name, value in el.models.export_torch(ours, source).items():
        if not name.endswith("num_batches_tracked"):
            error = relative_error(value, updated[name])
            assert error < tolerance, (name, error)


def _step(model, x, y):
    """The loss; the model is updated in place."""
    model.train()
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    tx = optax.sgd(RATE, MOMENTUM)

    def loss(params, rest):
        merged = nnx.merge(graphdef, params, rest, copy=True)
        losses = optax.softmax_cross_entropy_with_integer_labels(merged(x), y)
        return losses.mean(), nnx.state(merged, nnx.Not(nnx.Param))

    @jax.jit
    def step(params, rest):
        (value, rest), grads = jax.value_and_grad(loss, has_aux=True)(params, rest)
        updates, _ = tx.update(grads, tx.init(params), params)
        return optax.apply_updates(params, updates), rest, value

    params, rest, value = step(params, rest)
    nnx.update(model, params, rest)
    return float(np.asarray(value))
