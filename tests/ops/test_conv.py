# SPDX-License-Identifier: Apache-2.0
"""Each fast form against a NumPy loop, its XLA twin (gradients too) and torch."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from efficient_layers import ops

NUMBERS = {
    1: ("NHC", "HIO", "NHC"),
    2: ("NHWC", "HWIO", "NHWC"),
    3: ("NDHWC", "DHWIO", "NDHWC"),
}

# name: x shape, kernel, out, keyword arguments
CASES = {
    "depthwise": ((2, 7, 6, 5), (3, 3), 5, {"groups": 5}),
    "depthwise stride 2": ((2, 7, 6, 5), (3, 3), 5, {"groups": 5, "strides": 2}),
    "depthwise stride 3, uneven padding": (
        (2, 9, 8, 3),
        (3, 5),
        3,
        {"groups": 3, "strides": 3, "padding": [(1, 2), (0, 3)]},
    ),
    "depthwise dilated": ((1, 9, 9, 4), (3, 3), 4, {"groups": 4, "w_dilation": 2}),
    "depthwise multiplier": ((2, 5, 6, 3), (3, 3), 6, {"groups": 3, "strides": 2}),
    "depthwise input dilation": (
        (2, 4, 5, 3),
        (3, 3),
        3,
        {"groups": 3, "x_dilation": 2, "padding": [(1, 1), (2, 0)]},
    ),
    "depthwise negative padding": (
        (2, 7, 6, 5),
        (3, 3),
        5,
        {"groups": 5, "padding": [(-1, 2), (1, -1)]},
    ),
    "depthwise wide padding": (
        (1, 5, 6, 3),
        (3, 3),
        3,
        {"groups": 3, "padding": [(4, 5), (0, 3)]},
    ),
    "depthwise stride 2, dilated": (
        (2, 9, 8, 3),
        (3, 3),
        3,
        {"groups": 3, "strides": 2, "w_dilation": 2},
    ),
    "depthwise kernel below its stride": ((1, 8, 7, 3), (2, 1), 3, {"groups": 3, "strides": 3}),
    "depthwise 1-D": ((2, 9, 4), (5,), 4, {"groups": 4, "strides": 2}),
    "depthwise 3-D": ((1, 4, 3, 5, 2), (3, 3, 3), 4, {"groups": 2}),
    "depthwise large kernel": ((1, 12, 12, 2), (9, 9), 2, {"groups": 2}),
    "grouped": ((2, 7, 6, 6), (3, 3), 4, {"groups": 2, "strides": 2}),
    "grouped 1x1": ((2, 5, 5, 6), (1, 1), 9, {"groups": 3}),
    "pointwise": ((2, 5, 6, 7), (1, 1), 4, {}),
    "pointwise stride 2": ((2, 5, 6, 7), (1, 1), 4, {"strides": 2}),
    "pointwise padded": ((2, 5, 6, 7), (1, 1), 4, {"padding": [(1, 1), (0, 2)]}),
    "stem": ((2, 9, 8, 3), (3, 3), 5, {"strides": 2}),
    "dense": ((2, 7, 6, 5), (3, 3), 4, {"strides": 2, "w_dilation": 2}),
    "dense valid": ((1, 7, 6, 5), (3, 2), 4, {"padding": "VALID"}),
    "empty batch": ((0, 7, 6, 5), (3, 3), 5, {"groups": 5}),
    "empty output": ((1, 2, 2, 5), (3, 3), 5, {"groups": 5, "padding": "VALID"}),
}
FAST_CASES = ["depthwise stride 2", "grouped", "pointwise", "stem", "dense"]


def problem(name, dtype=jnp.float32):
    """(function of x and w, x, w) of a case."""
    shape, kernel, out, options = CASES[name]
    rank = len(kernel)
    groups = options.get("groups", 1)
    draw = np.random.default_rng(0).normal
    x = jnp.asarray(draw(size=shape), dtype)
    w = jnp.asarray(draw(size=(*kernel, shape[-1] // groups, out)), dtype)

    def convolution(x, w):
        return ops.conv_general_dilated(
            x,
            w,
            (options.get("strides", 1),) * rank,
            options.get("padding", "SAME"),
            lhs_dilation=(options.get("x_dilation", 1),) * rank,
            rhs_dilation=(options.get("w_dilation", 1),) * rank,
            dimension_numbers=NUMBERS[rank],
            feature_group_count=groups,
        )

    return convolution, x, w


def under(name, function, *args):
    with ops.lowering(name):
        return jax.jit(function)(*args)


def close(got, expected, tolerance=2e-6):
    jax.tree.map(lambda a, b: _close(a, b, tolerance), got, expected)


def _close(got, expected, tolerance):
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    got, expected = np.asarray(got, np.float32), np.asarray(expected, np.float32)
    scale = max(1.0, np.abs(expected).max(initial=0.0))
    np.testing.assert_allclose(got / scale, expected / scale, rtol=0, atol=tolerance)


def numpy_convolution(x, w, stride, padding, dilation, groups):
    """The definition, one multiply-accumulate at a time over taps."""
    (top, bottom), (left, right) = padding
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    kh, kw, per_group, out = w.shape
    height = (x.shape[1] - (kh - 1) * dilation - 1) // stride + 1
    width = (x.shape[2] - (kw - 1) * dilation - 1) // stride + 1
    y = np.zeros((x.shape[0], height, width, out))
    for i, j, o, a, b in itertools.product(*map(range, (height, width, out, kh, kw))):
        first = o // (out // groups) * per_group
        row, column = i * stride + a * dilation, j * stride + b * dilation
        y[:, i, j, o] += x[:, row, column, first : first + per_group] @ w[a, b, :, o]
    return y


@pytest.mark.fast
@pytest.mark.parametrize(
    ("channels", "out", "groups", "kernel", "stride", "dilation"),
    [
        (3, 3, 3, 3, 1, 1),
        (3, 6, 3, 3, 2, 2),
        (4, 6, 2, 3, 2, 1),
        (5, 4, 1, 1, 2, 1),
        (3, 4, 1, 3, 2, 1),
    ],
)
def test_forward_is_the_numpy_loop(channels, out, groups, kernel, stride, dilation):
    draw = np.random.default_rng(1).normal
    x = draw(size=(2, 7, 6, channels)).astype(np.float32)
    w = draw(size=(kernel, kernel, channels // groups, out)).astype(np.float32)
    padding = [(kernel // 2,) * 2] * 2
    with ops.lowering("cpu"):
        y = ops.conv_general_dilated(
            jnp.asarray(x),
            jnp.asarray(w),
            (stride, stride),
            padding,
            rhs_dilation=(dilation, dilation),
            dimension_numbers=NUMBERS[2],
            feature_group_count=groups,
        )
    np.testing.assert_allclose(
        y, numpy_convolution(x, w, stride, padding, dilation, groups), atol=1e-5
    )


@pytest.mark.parametrize("name", CASES)
def test_forward_and_gradients_are_those_of_the_reference(name):
    convolution, x, w = problem(name)

    def everything(x, w):
        y, vjp = jax.vjp(convolution, x, w)
        return y, vjp(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))

    close(under("cpu", everything, x, w), under("reference", everything, x, w))


@pytest.mark.fast
@pytest.mark.parametrize("name", FAST_CASES)
def test_forward_mode_and_second_derivatives_are_those_of_the_reference(name):
    convolution, x, w = problem(name)

    def loss(x, w):
        return (convolution(x, w) ** 3).sum()

    def everything(x, w):
        first = jax.jvp(convolution, (x, w), (x[::-1], w[::-1]))
        both = jax.jvp(jax.grad(loss, argnums=(0, 1)), (x, w), (x[::-1], w[::-1]))
        twice = jax.grad(lambda x, w: (jax.grad(loss, argnums=1)(x, w) ** 2).sum())(x, w)
        return first, both, twice

    close(under("cpu", everything, x, w), under("reference", everything, x, w))


@pytest.mark.fast
@pytest.mark.parametrize("name", FAST_CASES)
def test_vmap_over_inputs_weights_and_gradients(name):
    convolution, x, w = problem(name)
    ws = jnp.stack([w, 2 * w, -w])
    xs = jnp.stack([x, x + 1, 3 * x])

    def per_member(x, w):
        return jax.grad(lambda x, w: (convolution(x, w) ** 2).sum(), argnums=(0, 1))(x, w)

    def everything(xs, ws):
        return (
            jax.vmap(convolution, (0, None))(xs, ws[0]),
            jax.vmap(convolution, (None, 0))(xs[0], ws),
            jax.vmap(convolution, (1, 3), 2)(jnp.moveaxis(xs, 0, 1), jnp.moveaxis(ws, 0, 3)),
            jax.vmap(per_member)(xs, ws),
            jax.vmap(jax.vmap(convolution, (None, 0)), (0, None))(xs, ws),
            jax.grad(lambda w: (jax.vmap(convolution, (0, None))(xs, w) ** 2).sum())(ws[0]),
        )

    close(under("cpu", everything, xs, ws), under("reference", everything, xs, ws))


@pytest.mark.fast
@pytest.mark.parametrize("name", FAST_CASES)
def test_bfloat16_stays_bfloat16(name):
    convolution, x, w = problem(name, jnp.bfloat16)

    def everything(x, w):
        y, vjp = jax.vjp(convolution, x, w)
        return y, vjp(y)

    got = under("cpu", everything, x, w)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(got))
    close(got, under("reference", everything, x, w), 0.02)


@pytest.mark.fast
def test_gradient_is_the_finite_difference():
    convolution, x, w = problem("depthwise stride 2")
    with ops.lowering("cpu"):
        check_grads(convolution, (x, w), order=2, atol=2e-2, rtol=2e-2)


@pytest.mark.fast
def test_without_jit_under_remat_and_in_scan_the_numbers_are_the_same():
    convolution, x, w = problem("depthwise")

    def loss(x):
        return (convolution(x, w) ** 2).sum()

    def scanned(x):
        return jax.lax.scan(lambda total, x: (total + loss(x[None]), None), 0.0, x)[0]

    plain = under("reference", jax.grad(loss), x)
    close(jax.grad(loss)(x), plain)
    close(jax.grad(jax.checkpoint(loss))(x), plain)
    close(jax.jit(jax.grad(scanned))(x), plain)


@pytest.mark.fast
def test_a_layout_or_type_without_a_fast_form_is_the_reference():
    draw = np.random.default_rng(0).normal
    x, w = jnp.asarray(draw(size=(1, 3, 5, 5))), jnp.asarray(draw(size=(3, 1, 3, 3)))
    for a, b in ((x, w), (x.astype(jnp.int32), w.astype(jnp.int32))):
        got = ops.conv_general_dilated(a, b, (1, 1), "SAME", feature_group_count=3)
        expected = jax.lax.conv_general_dilated(a, b, (1, 1), "SAME", feature_group_count=3)
        np.testing.assert_array_equal(got, expected)


@pytest.mark.fast
@pytest.mark.parametrize("check", [True, False])
def test_inside_shard_map_the_gradient_is_that_of_the_reference(check):
    convolution, x, w = problem("depthwise")
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    parts = (jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec("data"))

    def gradient(w, x):
        return jax.grad(lambda w: jax.lax.psum((convolution(x, w) ** 2).sum(), "data"))(w)

    mapped = jax.shard_map(gradient, mesh=mesh, in_specs=parts, out_specs=parts[0], check_vma=check)
    close(mapped(w, x), jax.grad(lambda w: (convolution(x, w) ** 2).sum())(w))


@pytest.mark.fast
@pytest.mark.parametrize(
    ("x", "w", "groups", "message"),
    [
        (
            (1, 5, 5, 4),
            (3, 3, 3, 8),
            1,
            r"3 x 1 = 3 input channels .* Got an input of \(1, 5, 5, 4\)",
        ),
        ((1, 5, 5, 4), (3, 3, 2, 5), 2, "groups to divide the 5 output channels"),
        ((1, 5, 4), (3, 3, 4, 8), 1, r"same rank. Got \(1, 5, 4\) and \(3, 3, 4, 8\)"),
        ((1, 5, 5, 4), (3, 3, 4, 8), 0, "at least 1. Got 0"),
    ],
)
def test_what_does_not_fit_is_said_in_words(x, w, groups, message):
    with pytest.raises(ValueError, match=message):
        ops.conv_general_dilated(
            jnp.ones(x),
            jnp.ones(w),
            (1, 1),
            "SAME",
            dimension_numbers=NUMBERS[2],
            feature_group_count=groups,
        )


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["depthwise stride 2", "grouped", "pointwise", "stem", "dense"])
def test_forward_and_gradients_are_torchs(name):
    torch = pytest.importorskip("torch", reason="torch is the oracle; CI installs it")
    convolution, x, w = problem(name)
    shape, kernel, _, options = CASES[name]
    strides, dilation = options.get("strides", 1), options.get("w_dilation", 1)
    if strides == 2 and kernel != (1, 1):  # SAME's own padding, written out
        extent = (kernel[0] - 1) * dilation + 1
        total = [max(0, (-(-s // 2) - 1) * 2 + extent - s) for s in shape[1:3]]
        pads = [(t // 2, t - t // 2) for t in total]
    else:
        pads = [(0, 0), (0, 0)]
    tx = torch.tensor(np.asarray(x).transpose(0, 3, 1, 2), requires_grad=True)
    tw = torch.tensor(np.asarray(w).transpose(3, 2, 0, 1), requires_grad=True)
    padded = torch.nn.functional.pad(tx, (*pads[1], *pads[0]))
    groups = options.get("groups", 1)
    ty = torch.nn.functional.conv2d(padded, tw, None, strides, 0, dilation, groups)
    (ty**2).sum().backward()
    dx, dw = jax.grad(lambda x, w: (convolution(x, w) ** 2).sum(), argnums=(0, 1))(x, w)
    close(convolution(x, w), jnp.asarray(ty.detach().numpy().transpose(0, 2, 3, 1)))
    close(dx, jnp.asarray(tx.grad.numpy().transpose(0, 2, 3, 1)))
    close(dw, jnp.asarray(tw.grad.numpy().transpose(2, 3, 1, 0)))
