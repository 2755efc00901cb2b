# SPDX-License-Identifier: Apache-2.0
"""DepthwiseConv: bad input, torch's numbers, the paper's saving, and no grouped XLA convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import efficient_layers as el
from efficient_layers.layers import Conv, DepthwiseConv


@pytest.mark.fast
@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((0,), {}, "DepthwiseConv expects in_features of at least 1. Got 0."),
        ((4,), {"multiplier": 0}, "DepthwiseConv expects multiplier of at least 1. Got 0."),
        ((4, (3, 0)), {}, r"DepthwiseConv expects kernel_size of at least 1. Got \(3, 0\)."),
        ((4, 3, 0), {}, "DepthwiseConv expects strides of at least 1. Got 0."),
        ((4,), {"kernel_dilation": 0}, "expects kernel_dilation of at least 1. Got 0."),
    ],
)
def test_sizes_below_one_are_errors(args, kwargs, message):
    with pytest.raises(ValueError, match=message):
        DepthwiseConv(*args, rngs=nnx.Rngs(0), **kwargs)


@pytest.mark.fast
def test_inputs_that_do_not_fit_are_errors():
    layer = DepthwiseConv(4, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"DepthwiseConv expects .*\(\*batch, h w, 4\)"):
        layer(jnp.ones((1, 5, 5, 3)))
    with pytest.raises(TypeError, match="DepthwiseConv expects a floating-point"):
        layer(jnp.ones((1, 5, 5, 4), jnp.int32))


@pytest.mark.fast
def test_it_is_a_conv_with_a_group_a_channel():
    """Whatever works on convolutions (compression, counting, nnx.Conv's state) works on it."""
    layer = DepthwiseConv(4, 3, multiplier=2, rngs=nnx.Rngs(0))
    plain = nnx.Conv(4, 8, (3, 3), feature_group_count=4, rngs=nnx.Rngs(1))
    nnx.update(plain, nnx.state(layer))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 6, 5, 4)), jnp.float32)
    assert isinstance(layer, Conv)
    np.testing.assert_allclose(layer(x), plain(x), atol=1e-6)


@pytest.mark.fast
def test_the_paper_saves_eight_to_nine_times_for_3x3():
    """MobileNets, section 3.1: cost ratio 1 / out + 1 / k^2 of depthwise + 1x1 against full."""
    x = jax.ShapeDtypeStruct((1, 14, 14, 512), jnp.float32)

    def macs(layer):
        return el.measure.cost(nnx.eval_shape(lambda: layer(rngs=nnx.Rngs(0))), x).macs

    full = macs(lambda rngs: Conv(512, 512, (3, 3), rngs=rngs))
    split = macs(lambda rngs: DepthwiseConv(512, rngs=rngs))
    split += macs(lambda rngs: Conv(512, 512, (1, 1), rngs=rngs))
    assert split / full == pytest.approx(1 / 512 + 1 / 9)


@pytest.mark.fast
def test_no_grouped_convolution_is_compiled_on_a_cpu():
    layer = DepthwiseConv(8, 3, strides=2, rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(layer)
    stacked = jax.tree.map(lambda p: jnp.stack([p, p]), params)

    def loss(params, x):
        return (nnx.merge(graphdef, params)(x) ** 2).sum()

    with el.ops.lowering("cpu"):
        program = jax.jit(jax.vmap(jax.grad(loss), (0, None)))
        text = program.lower(stacked, jnp.ones((2, 6, 6, 8))).as_text()
    assert "stablehlo.convolution" not in text


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("kernel", "strides", "dilation", "multiplier"), [(3, 2, 1, 1), (5, 1, 2, 2), (3, (2, 1), 2, 1)]
)
def test_numbers_and_gradients_are_torchs(kernel, strides, dilation, multiplier):
    torch = pytest.importorskip("torch", reason="torch is the oracle; CI installs it")
    layer = DepthwiseConv(
        4, kernel, strides, multiplier=multiplier, kernel_dilation=dilation, rngs=nnx.Rngs(0)
    )
    padding = (kernel - 1) * dilation // 2
    theirs = torch.nn.Conv2d(4, 4 * multiplier, kernel, strides, padding, dilation, groups=4)
    theirs.weight.data = torch.tensor(np.asarray(layer.kernel[...]).transpose(3, 2, 0, 1).copy())
    layer.bias[...] = jnp.asarray(theirs.bias.detach().numpy())
    x = np.random.default_rng(0).normal(size=(2, 9, 7, 4)).astype(np.float32)
    tx = torch.tensor(x.transpose(0, 3, 1, 2).copy(), requires_grad=True)
    ty = theirs(tx)
    (ty**3).sum().backward()
    np.testing.assert_allclose(layer(x), ty.detach().numpy().transpose(0, 2, 3, 1), atol=1e-5)
    dx = jax.grad(lambda x: (layer(x) ** 3).sum())(jnp.asarray(x))
    np.testing.assert_allclose(dx, tx.grad.numpy().transpose(0, 2, 3, 1), atol=1e-3)
