# SPDX-License-Identifier: Apache-2.0
"""The lowering is part of jit's cache key, and a VJP keeps that of its forward."""

import jax
import jax.numpy as jnp
import pytest

from efficient_layers import ops

pytestmark = pytest.mark.fast


def depthwise(x, w):
    numbers = ("NHWC", "HWIO", "NHWC")
    groups = x.shape[-1]
    return ops.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=numbers, feature_group_count=groups
    )


def primitives(function, *args) -> str:
    return str(jax.make_jaxpr(function)(*args))


def test_a_jitted_function_is_traced_again_under_another_lowering():
    traced = []

    @jax.jit
    def function(x):
        traced.append(ops.current_lowering())
        return x + 1

    for name in ("reference", "cpu", "reference", "cpu"):
        with ops.lowering(name):
            function(jnp.ones(3))
    assert traced == ["reference", "cpu"]


def test_a_vjp_keeps_the_lowering_of_its_forward():
    x, w = jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 1, 2))
    with ops.lowering("cpu"):
        _, fast = jax.vjp(depthwise, x, w)
    with ops.lowering("reference"):
        _, plain = jax.vjp(depthwise, x, w)
        assert "trilinear" in primitives(fast, x)
    with ops.lowering("cpu"):
        text = primitives(plain, x)
    assert "trilinear" not in text
    assert "conv_general_dilated" in text


def test_none_follows_the_backend():
    with ops.lowering("tpu"):
        assert ops.current_lowering() == "tpu"
        with ops.lowering(None):
            assert ops.current_lowering() == jax.default_backend() == "cpu"
    assert ops.current_lowering() == "cpu"


def test_an_unknown_name_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'reference', 'cpu', 'gpu', 'tpu' or None\. Got 'mps'"):
        ops.lowering("mps")


@pytest.mark.parametrize("name", ["reference", "gpu", "tpu"])
def test_other_lowerings_are_plain_xla_with_a_symbolic_batch(name):
    batch = jax.export.symbolic_shape("b, 4, 4, 2")
    x = jax.ShapeDtypeStruct(batch, jnp.float32)
    with ops.lowering(name):
        exported = jax.export.export(jax.jit(lambda x: depthwise(x, jnp.ones((3, 3, 1, 2)))))(x)
    assert exported.out_avals[0].shape == batch
    assert "convolution" in exported.mlir_module()


def test_the_fast_forms_stand_back_where_a_size_is_symbolic():
    x = jax.ShapeDtypeStruct(jax.export.symbolic_shape("b, 4, 4, 2"), jnp.float32)
    exported = jax.export.export(jax.jit(lambda x: depthwise(x, jnp.ones((3, 3, 1, 2)))))(x)
    assert "convolution" in exported.mlir_module()
