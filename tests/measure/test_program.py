# SPDX-License-Identifier: Apache-2.0
"""One compilation serves memory, operations and latency."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from efficient_layers.measure import compiled_view, executed, latency, memory

pytestmark = pytest.mark.fast


class Net(nnx.Module):
    def __init__(self, traces):
        self.w = nnx.Param(jnp.ones((4, 4)))
        self.traces = traces

    def __call__(self, x):
        self.traces()
        return x @ self.w[...]


def test_three_questions_one_trace():
    traced = []
    program = compiled_view(
        Net(lambda: traced.append(1)), jax.ShapeDtypeStruct((2, 4), jnp.float32)
    )
    assert executed(program).instructions > 0
    assert memory(program)["argument_bytes"] == 4 * (16 + 8)
    timed = latency(program, calls=2, warmup=1)
    assert timed.compile_s == program.seconds
    assert traced == [1]


def test_the_answers_are_those_of_the_model():
    model, x = Net(lambda: None), jnp.ones((2, 4))
    program = compiled_view(model, x)
    assert executed(program) == executed(model, x)
    parts = ("argument_bytes", "output_bytes", "temporary_bytes", "weight_bytes")
    found, direct = memory(program), memory(model, x)
    assert [found[p] for p in parts] == [direct[p] for p in parts]
