# SPDX-License-Identifier: Apache-2.0
"""FusedMBConv: bad input, timm's and torchvision's numbers, parts."""

import functools

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from efficient_layers.layers import FusedMBConv
from tests.layers import torch_weights


@pytest.mark.fast
def test_bad_sizes_and_inputs_are_errors():
    with pytest.raises(ValueError, match=r"expand_ratio x in_features .* Got 0.01 x 8"):
        FusedMBConv(8, 8, expand_ratio=0.01, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"expects strides of at least 1. Got 0"):
        FusedMBConv(4, 8, strides=0, rngs=nnx.Rngs(0))
    block = nnx.eval_shape(lambda: FusedMBConv(4, 8, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=r"Got \(1, 5, 5, 3\)"):
        block(jnp.ones((1, 5, 5, 3)))
    with pytest.raises(TypeError, match="floating-point"):
        block(jnp.ones((1, 5, 5, 4), jnp.int32))


@pytest.mark.fast
def test_out_names_the_parts():
    def parts():
        out: dict[str, jax.Array] = {}
        block = FusedMBConv(4, 6, strides=2, se_ratio=0.25, rngs=nnx.Rngs(0))
        block(jnp.ones((1, 5, 5, 4)), out=out)
        return out

    assert {k: v.shape for k, v in jax.eval_shape(parts).items()} == {
        "expand": (1, 3, 3, 16),
        "se": (1, 3, 3, 16),
        "project": (1, 3, 3, 6),
    }


@pytest.mark.oracle
@pytest.mark.parametrize(("out", "strides"), [(8, 1), (12, 2)])
def test_numbers_are_timms(out, strides):
    blocks = torch_weights.timm_blocks()
    from torch import nn

    excite = functools.partial(blocks.SqueezeExcite, rd_ratio=0.125)
    theirs = blocks.EdgeResidual(
        8, out, 3, strides, exp_ratio=4, act_layer=nn.SiLU, se_layer=excite
    )
    ours = FusedMBConv(8, out, strides=strides, se_ratio=0.125, rngs=nnx.Rngs(0))
    order = torch_weights.parts(ours.expand, ours.se, ours.project)
    torch_weights.copy(torch_weights.randomise(theirs), order)
    torch_weights.assert_equal(ours, theirs, (2, 7, 6, 8))


@pytest.mark.oracle
@pytest.mark.parametrize("ratio", [1, 4])
def test_numbers_are_torchvisions(ratio):
    torch_weights.timm_blocks()  # the stub that torchvision needs here
    reason = "torchvision is an oracle: see docs/dependencies.md"
    efficientnet = pytest.importorskip("torchvision.models.efficientnet", reason=reason)
    from torch import nn

    settings = efficientnet.FusedMBConvConfig(ratio, 3, 1, 8, 8, 1)
    norm = functools.partial(nn.BatchNorm2d, eps=1e-5)
    theirs = efficientnet.FusedMBConv(settings, 0.0, norm)
    ours = FusedMBConv(8, 8, expand_ratio=ratio, rngs=nnx.Rngs(0))
    order = torch_weights.parts(ours.expand, ours.project)
    torch_weights.copy(torch_weights.randomise(theirs), order)
    torch_weights.assert_equal(ours, theirs, (2, 5, 6, 8))
