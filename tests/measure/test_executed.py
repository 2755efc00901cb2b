# SPDX-License-Identifier: Apache-2.0
"""What the compiler made of a program, from its text."""

import json

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from efficient_layers.measure.executed import count_hlo, executed

pytestmark = pytest.mark.fast

# Lines as XLA prints them for a GPU, with and without the operands' types.
GPU = """
HloModule jit_f, is_scheduled=true
%gemm_fusion (p0: s8[64,128], p1: s8[128,64]) -> s32[64,64] {
  %p0 = s8[64,128]{1,0} parameter(0)
  %p1 = s8[128,64]{1,0} parameter(1)
  ROOT %dot.1 = s32[64,64]{1,0} dot(s8[64,128]{1,0} %p0, s8[128,64]{1,0} %p1), dims={1}
}
ENTRY %main (x: bf16[8,16], w: bf16[16,4]) -> f32[4] {
  %x = bf16[8,16]{1,0} parameter(0)
  %w = bf16[16,4]{1,0} parameter(1)
  %i = f16[1,8,8,4]{3,2,1,0:T(8,128)} parameter(2)
  %call = (bf16[8,4]{1,0}, s8[4096]{0}) custom-call(%x, %w), custom_call_target="__cublas$gemm"
  %conv = (f16[1,8,8,4], u8[0]) custom-call(%i, %i), custom_call_target="__cudnn$convForward"
  %top = (f32[4]{0}, s32[4]{0}) custom-call(%x), custom_call_target="TopK"
  %mixed = f32[8,4]{1,0} dot(%x, %p1), lhs_contracting_dims={1}
  %fused = s32[64,64]{1,0} fusion(%q, %r), kind=kCustom, calls=%gemm_fusion
  ROOT %done = f32[4]{0} get-tuple-element((f32[4]{0}, s32[4]{0}) %top), index=0
}
"""


def test_reading_gpu_text():
    counts = count_hlo(GPU)
    assert counts["dots"] == {"int8": 1, "bf16": 1, "bf16*int8": 1}
    assert counts["convolutions"] == {"f16": 1}
    assert counts["custom_calls"] == {"__cublas$gemm": 1, "__cudnn$convForward": 1, "TopK": 1}
    assert counts["fusions"] == 1
    assert counts["instructions"] == 12


class Integer(nnx.Module):
    """int8 x int8 -> int32, as a finalised quantised layer runs."""

    def __init__(self):
        self.codes = nnx.Variable(jnp.ones((128, 64), jnp.int8))

    def __call__(self, x):
        return jax.lax.dot(x, self.codes[...], preferred_element_type=jnp.int32)


def test_integer_dots_are_seen_as_what_the_compiler_made_of_them():
    ran = executed(Integer(), jax.ShapeDtypeStruct((64, 128), jnp.int8))
    assert sum(ran.dots.values()) == 1
    # Where XLA widens integer dots to int32, int8 may not be said.
    assert set(ran.dots) <= {"int8", "int32"}
    assert ran.int8_dots == ran.dots.get("int8", 0)
    assert ran.float_dots == 0


def test_a_fake_quantised_layer_runs_in_float():
    def fake(x, w):
        return x @ jnp.round(w * 127).astype(jnp.int8).astype(jnp.float32)

    x = jax.ShapeDtypeStruct((64, 128), jnp.float32)
    ran = executed(fake, (x, jax.ShapeDtypeStruct((128, 64), jnp.float32)))
    assert (ran.int8_dots, ran.float_dots) == (0, 1)


def test_convolutions_fusions_bytes_and_memory():
    model = nnx.eval_shape(lambda: nnx.Conv(3, 8, (3, 3), rngs=nnx.Rngs(0)))
    ran = executed(model, jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32))
    assert ran.convolutions == {"f32": 1}
    assert ran.dots == {}
    assert ran.instructions > 3
    moved = 4 * (2 * 64 * 3 + 27 * 8 + 8 + 2 * 64 * 8)
    assert ran.bytes_accessed >= moved
    assert ran.flops >= 2 * 2 * 64 * 8 * 3 * 4  # at least the corner taps
    assert ran.memory["output_bytes"] == 4 * 2 * 64 * 8
    data = json.loads(json.dumps(ran.to_json()))
    assert data["float_dots"] == 0
    assert data["platform"] == jax.default_backend()


def test_a_loop_counts_its_body_once():
    def fn(x, w):
        return jax.lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, None, length=9)[0]

    square = jax.ShapeDtypeStruct((128, 128), jnp.float32)
    assert executed(fn, (square, square)).float_dots == 1
