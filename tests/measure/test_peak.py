# SPDX-License-Identifier: Apache-2.0
"""The peak is measured once, and utilisation is a share of it."""

import time

import jax
import jax.numpy as jnp
import pytest

from efficient_layers.measure import peak
from efficient_layers.measure.cost import cost
from efficient_layers.measure.peak import matmul_peak, mfu, training_flops

pytestmark = pytest.mark.fast


def test_the_peak_is_plausible_and_kept():
    first = matmul_peak(jnp.float32)
    assert 1e8 < first < 1e16
    start = time.perf_counter()
    assert matmul_peak("float32") == first
    assert time.perf_counter() - start < 0.1


def test_utilisation_is_a_share_of_the_peak(monkeypatch):
    monkeypatch.setattr(peak, "_peak", lambda dtype, platform: 1e12)
    assert mfu(5e11, 1.0) == 0.5
    assert mfu(5e11, 0.5, "bfloat16", devices=2) == 0.5
    with pytest.raises(ValueError, match="seconds > 0"):
        mfu(1.0, 0.0)


def test_training_flops_are_three_forward_passes():
    """Against the count of a real step, of a layer whose input needs a gradient too."""
    square = jax.ShapeDtypeStruct((32, 32), jnp.float32)
    step = jax.value_and_grad(lambda w, x: (x @ w).sum(), (0, 1))
    counted = cost(step, (square, square), batch_axis=None)
    assert training_flops(32**3) == counted.flops
    assert training_flops(10, batch=4) == 240
