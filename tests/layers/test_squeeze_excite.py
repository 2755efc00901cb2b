# SPDX-License-Identifier: Apache-2.0
"""SqueezeExcite alone and inside InvertedResidual: bad input, widths, timm's numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import ops
from efficient_layers.layers import InvertedResidual, SqueezeExcite, make_divisible
from tests.layers import torch_weights


@pytest.mark.fast
def test_bad_sizes_and_inputs_are_errors():
    with pytest.raises(ValueError, match=r"at least 1. Got 4 and 0"):
        SqueezeExcite(4, rd_ratio=0.1, rngs=nnx.Rngs(0))
    layer = SqueezeExcite(4, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"\(\*batch, h, w, 4\). Got \(5, 4\)"):
        layer(jnp.ones((5, 4)))
    with pytest.raises(ValueError, match=r"Got \(1, 5, 5, 3\)"):
        layer(jnp.ones((1, 5, 5, 3)))
    with pytest.raises(TypeError, match=r"floating-point input. Got int32"):
        layer(jnp.ones((1, 5, 5, 4), jnp.int32))
    with pytest.raises(ValueError, match=r"at least 1. Got 8 and 0"):
        InvertedResidual(4, 4, expand_ratio=2, se_ratio=0.01, rngs=nnx.Rngs(0))


@pytest.mark.fast
def test_each_image_has_gates_of_its_own_between_0_and_1():
    layer = SqueezeExcite(8, rngs=nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4, 5, 8)), jnp.float32)
    gates = layer(x) / x
    np.testing.assert_allclose(gates, jnp.broadcast_to(gates[..., :1, :1, :], x.shape), rtol=1e-5)
    assert 0 < float(gates.min()) < float(gates.max()) < 1
    np.testing.assert_allclose(layer(x[1, 2]), layer(x)[1, 2], rtol=1e-5)


@pytest.mark.fast
def test_the_blocks_bottleneck_is_a_ratio_of_hidden_or_a_width():
    def width(**kwargs):
        block = nnx.eval_shape(
            lambda: InvertedResidual(8, 8, expand_ratio=6, rngs=nnx.Rngs(0), **kwargs)
        )
        return block.se and block.se.rd_features

    assert width() is None
    assert width(se_ratio=0.25) == 12
    assert width(se_features=2) == width(se_ratio=0.25, se_features=2) == 2
    out: dict[str, jax.Array] = {}

    def run():
        block = InvertedResidual(8, 8, se_ratio=0.25, rngs=nnx.Rngs(0))
        return block(jnp.ones((1, 4, 4, 8)), out=out)

    jax.eval_shape(run)
    assert list(out) == ["expand", "depthwise", "se", "project"]


@pytest.mark.oracle
def test_numbers_are_timms():
    blocks = torch_weights.timm_blocks()
    theirs = torch_weights.randomise(blocks.SqueezeExcite(12))
    ours = SqueezeExcite(12, rngs=nnx.Rngs(0))
    torch_weights.copy(theirs, [ours.reduce, ours.expand])
    torch_weights.assert_equal(ours, theirs, (2, 5, 4, 12))


@pytest.mark.oracle
@pytest.mark.parametrize("strides", [1, 2])
def test_mobilenet_v3s_block_is_timms(strides):
    blocks = torch_weights.timm_blocks()
    from torch import nn

    excite = functools.partial(
        blocks.SqueezeExcite,
        gate_layer=nn.Hardsigmoid,
        force_act_layer=nn.ReLU,
        rd_round_fn=make_divisible,
    )
    theirs = blocks.InvertedResidual(
        8, 8, 5, strides, exp_ratio=3, act_layer=nn.Hardswish, se_layer=excite
    )
    ours = InvertedResidual(
        8,
        8,
        kernel_size=5,
        strides=strides,
        expand_ratio=3,
        act=ops.hard_swish,
        se_features=make_divisible(24 / 4),
        se_act=jax.nn.relu,
        se_gate=ops.hard_sigmoid,
        rngs=nnx.Rngs(0),
    )
    order = torch_weights.parts(ours.expand, ours.depthwise, ours.se, ours.project)
    torch_weights.copy(torch_weights.randomise(theirs), order)
    torch_weights.assert_equal(ours, theirs, (2, 7, 6, 8))


@pytest.mark.oracle
def test_efficientnets_block_is_timms():
    blocks = torch_weights.timm_blocks()
    from torch import nn

    excite = functools.partial(blocks.SqueezeExcite, rd_ratio=0.25 / 6)
    theirs = blocks.InvertedResidual(8, 12, 3, 2, exp_ratio=6, act_layer=nn.SiLU, se_layer=excite)
    ours = InvertedResidual(
        8, 12, strides=2, act=jax.nn.silu, se_features=round(8 / 4), rngs=nnx.Rngs(0)
    )
    order = torch_weights.parts(ours.expand, ours.depthwise, ours.se, ours.project)
    torch_weights.copy(torch_weights.randomise(theirs), order)
    torch_weights.assert_equal(ours, theirs, (2, 7, 6, 8))
