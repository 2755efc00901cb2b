# SPDX-License-Identifier: Apache-2.0
"""Bytes against sizes known by hand."""

import json

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from efficient_layers.measure.memory import compiled_memory, memory, process_peak_bytes

pytestmark = pytest.mark.fast


def test_a_linear_layer():
    model = nnx.eval_shape(lambda: nnx.Linear(100, 50, rngs=nnx.Rngs(0)))
    found = memory(model, jax.ShapeDtypeStruct((8, 100), jnp.float32))
    weights = 4 * (100 * 50 + 50)
    assert found["weight_bytes"] == weights
    assert found["argument_bytes"] == weights + 4 * 8 * 100
    assert found["output_bytes"] == 4 * 8 * 50
    parts = ("argument_bytes", "output_bytes", "temporary_bytes")
    assert found["peak_bytes"] == sum(found[p] for p in parts) - found["aliased_bytes"]
    assert json.loads(json.dumps(found)) == found


def test_temporaries_are_in_the_peak():
    def fn(x):  # two products that must both be held before they meet
        return (x @ x.T) @ (x.T @ x @ x.T).T

    found = memory(fn, jax.ShapeDtypeStruct((64, 64), jnp.float32))
    assert found["temporary_bytes"] >= 4 * 64 * 64
    assert found["peak_bytes"] >= 3 * 4 * 64 * 64


def test_donated_arguments_are_not_counted_twice():
    x = jax.ShapeDtypeStruct((256, 256), jnp.float32)
    step = jax.jit(lambda x: x + 1, donate_argnums=0)
    found = compiled_memory(step.lower(x).compile())
    assert found["aliased_bytes"] == 4 * 256 * 256
    assert found["peak_bytes"] == 4 * 256 * 256 + found["temporary_bytes"]


def test_the_process_has_a_peak():
    held = bytearray(50_000_000)
    assert process_peak_bytes() > len(held)
