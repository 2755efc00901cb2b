# SPDX-License-Identifier: Apache-2.0
"""Rewinding: the zeros of one model, the weights of another."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers.compress import apply
from efficient_layers.compress.lottery import rewind, rounds
from efficient_layers.compress.prune import Prune

pytestmark = pytest.mark.fast


def net(seed, out=4):
    return nnx.Sequential(nnx.Linear(6, out, rngs=nnx.Rngs(seed)))


def test_a_ticket_has_the_early_weights_and_the_late_zeros():
    early, late = net(0), net(1)
    late.layers[0].bias.set_value(jnp.ones(4))
    pruned, _ = apply(late, [Prune("**", sparsity=0.5)])
    ticket = rewind(pruned, early)
    zero = np.asarray(pruned.layers[0].kernel[...]) == 0
    expected = np.where(zero, 0, np.asarray(early.layers[0].kernel[...]))
    assert zero.sum() == 12
    np.testing.assert_array_equal(ticket.layers[0].kernel[...], expected)
    np.testing.assert_array_equal(ticket.layers[0].bias[...], 0)
    assert (np.asarray(early.layers[0].kernel[...]) != 0).all()


def test_rounds_prune_the_same_share_of_what_is_left():
    left = 1 - np.array([0, *rounds(0.9, 5)])
    np.testing.assert_allclose(left[1:] / left[:-1], 0.1**0.2)
    assert left[-1] == pytest.approx(0.1)


def test_errors():
    with pytest.raises(ValueError, match=r"layers/0/kernel: \(6, 4\) pruned, \(6, 5\) early"):
        rewind(net(0), net(0, 5))
    with pytest.raises(ValueError, match="layers/1/kernel is in early alone"):
        rewind(net(0), nnx.Sequential(*[nnx.Linear(6, 6, rngs=nnx.Rngs(0)) for _ in range(2)]))
    with pytest.raises(ValueError, match="count >= 1"):
        rounds(0.5, 0)
