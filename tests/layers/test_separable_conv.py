# SPDX-License-Identifier: Apache-2.0
"""SeparableConv: bad input, timm's numbers in both orders, intermediates."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from efficient_layers.layers import SeparableConv
from tests.layers import torch_weights


@pytest.mark.fast
def test_bad_sizes_and_inputs_are_errors():
    with pytest.raises(ValueError, match=r"expects multiplier of at least 1. Got 0"):
        SeparableConv(4, 8, multiplier=0, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"expects out_features of at least 1. Got 0"):
        SeparableConv(4, 0, rngs=nnx.Rngs(0))
    layer = SeparableConv(4, 8, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"expects an input of shape .* Got \(1, 5, 5, 3\)"):
        layer(jnp.ones((1, 5, 5, 3)))
    with pytest.raises(TypeError, match="floating-point"):
        layer(jnp.ones((1, 5, 5, 4), jnp.int32))


@pytest.mark.fast
def test_out_names_both_convolutions():
    out: dict[str, jax.Array] = {}
    layer = SeparableConv(4, 8, strides=2, between=True, act=jax.nn.relu, rngs=nnx.Rngs(0))
    layer(jnp.ones((1, 5, 5, 4)), out=out)
    assert {k: v.shape for k, v in out.items()} == {
        "depthwise": (1, 3, 3, 4),
        "pointwise": (1, 3, 3, 8),
    }


@pytest.mark.oracle
def test_xceptions_order_gives_timms_numbers():
    torch_weights.timm_blocks()
    from timm.layers import SeparableConvNormAct

    theirs = torch_weights.randomise(SeparableConvNormAct(4, 6, 3, stride=2, dilation=1))
    ours = SeparableConv(4, 6, 3, 2, act=jax.nn.relu, rngs=nnx.Rngs(0))
    torch_weights.copy(theirs, [ours.depthwise, ours.pointwise, ours.bn])
    torch_weights.assert_equal(ours, theirs, (2, 7, 6, 4))


@pytest.mark.oracle
def test_mobilenet_v1s_order_gives_timms_numbers():
    blocks = torch_weights.timm_blocks()
    theirs = blocks.DepthwiseSeparableConv(4, 6, 5, stride=2, pw_act=True, noskip=True)
    ours = SeparableConv(4, 6, 5, 2, act=jax.nn.relu, between=True, rngs=nnx.Rngs(0))
    order = [ours.depthwise, ours.bn_between, ours.pointwise, ours.bn]
    torch_weights.copy(torch_weights.randomise(theirs), order)
    torch_weights.assert_equal(ours, theirs, (2, 7, 6, 4))
