# SPDX-License-Identifier: Apache-2.0
"""Codes, scales, bytes and sums bit by bit: NumPy loops, qwix, torch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efficient_layers import ops
from efficient_layers.ops.binary import binary, binary_codes, ternary, ternary_codes
from efficient_layers.ops.int_dot import int_conv, int_dot
from efficient_layers.ops.lsq import lsq, lsq_step
from efficient_layers.ops.pack import pack, stored_width, unpack
from efficient_layers.ops.quant_dot import int8_dot, weight_only_dot
from efficient_layers.ops.quant_noise import quant_noise
from efficient_layers.ops.quantize import (
    code_range,
    dequantize,
    fake_quantize,
    quantize,
    scale_and_zero_point,
    value_range,
)
from tests.layers.numpy_layers import convolution
from tests.layers.numpy_quant import codes_of, scale_zero, unpacked

DRAW = np.random.default_rng(0)


def numbers(*shape, low=-3.0, high=5.0):
    return DRAW.uniform(low, high, shape).astype(np.float32)


def integers(*shape):
    return DRAW.integers(-128, 128, shape).astype(np.int8)


@pytest.mark.fast
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("parts", [(1, 1), (1, 6), (4, 6), (8, 1)])
def test_codes_and_scales_are_those_of_a_loop(bits, symmetric, parts):
    x = numbers(8, 6)
    scale, zero = scale_and_zero_point(*value_range(x, parts), bits=bits, symmetric=symmetric)
    codes = quantize(x, scale, zero, bits=bits)
    assert codes.dtype == jnp.int8
    assert (zero is None) == symmetric
    back = dequantize(codes, scale, zero)
    codes, back, scale, zero = (
        None if a is None else np.asarray(a) for a in (codes, back, scale, zero)
    )
    for i in range(8):
        for j in range(6):
            g, c = i * parts[0] // 8, j * parts[1] // 6
            rows = slice(g * 8 // parts[0], (g + 1) * 8 // parts[0])
            columns = slice(c, c + 1) if parts[1] == 6 else slice(None)
            s, z = scale_zero(x[rows, columns], bits, symmetric)
            assert (scale[g, c], 0 if symmetric else zero[g, c]) == (s, z)
            assert codes[i, j] == codes_of(x[i, j], s, z, bits, symmetric)
            assert back[i, j] == np.float32(int(codes[i, j]) - z) * np.float32(s)


def test_a_range_of_zeros_or_without_zero():
    zeros = jnp.zeros((3, 1))
    assert np.all(scale_and_zero_point(zeros, zeros, bits=8)[0] == 1)
    scale, zero = scale_and_zero_point(jnp.float32(2.0), jnp.float32(4.0), bits=8, symmetric=False)
    assert (scale, zero) == (np.float32(4 / 255), -128)  # widened to hold 0
    assert code_range(8) == (-127, 127)
    assert code_range(4, symmetric=False) == (-8, 7)


@pytest.mark.oracle
@pytest.mark.parametrize("kind", [jnp.int8, jnp.int4])
def test_codes_are_those_of_qwix(kind):
    """At equal scales: qwix's differ in the last bit, symmetric ones by 127.5 / 127."""
    qwix = pytest.importorskip("qwix", reason="qwix, an optional extra, is not installed")
    qarray = pytest.importorskip("qwix._src.core.qarray", reason="qwix without its own parts")
    x, bits = jnp.asarray(numbers(16, 6)), jnp.iinfo(kind).bits
    for axes, tiles, parts in (((), {}, (1, 1)), ((1,), {}, (1, 6)), ((1,), {0: 4}, (4, 6))):
        settings = {"channelwise_axes": axes, "tiled_axes": tiles}
        theirs = qwix.quantize(x, kind, **settings, calibration_method="minmax")
        scale, zero = scale_and_zero_point(*value_range(x, parts), bits=bits, symmetric=False)
        np.testing.assert_allclose(scale, theirs.scale, rtol=2e-7)
        np.testing.assert_array_equal(zero, theirs.zero_point.astype(jnp.int8))
        codes = quantize(x, theirs.scale, zero, bits=bits)
        np.testing.assert_array_equal(codes, theirs.qvalue.astype(jnp.int8))
        back = dequantize(codes, theirs.scale, zero)
        np.testing.assert_array_equal(back, qwix.dequantize(theirs))
        scale, _ = scale_and_zero_point(*value_range(x, parts), bits=bits)
        theirs = qarray.quantize_with_scale_zero_point(x, kind, scale, None)
        np.testing.assert_array_equal(quantize(x, scale, bits=bits), theirs.qvalue.astype(jnp.int8))


@pytest.mark.oracle
@pytest.mark.parametrize("zero", [None, 17])
def test_fake_quantisation_and_its_gradient_are_torchs(zero):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x, scale = numbers(40, low=-8, high=8), np.float32(0.05)  # codes leave the range on both sides
    points = None if zero is None else jnp.full((1,), zero, jnp.int8)
    least = -128

    def ours(x):
        return fake_quantize(x, jnp.full((1,), scale), points, least=least)

    given = torch.tensor(x, requires_grad=True)
    theirs = torch.fake_quantize_per_tensor_affine(given, float(scale), zero or 0, least, 127)
    theirs.sum().backward()
    np.testing.assert_allclose(ours(x), theirs.detach().numpy(), rtol=1e-6)
    gradient = jax.grad(lambda x: ours(x).sum())(jnp.asarray(x))
    np.testing.assert_array_equal(gradient, given.grad.numpy())
    assert 0 < gradient.sum() < 40


def test_fake_quantisation_is_exact_and_keeps_every_transform():
    x = jnp.asarray(numbers(6, 4))
    scale, zero = scale_and_zero_point(*value_range(x, (1, 4)), bits=4, symmetric=False)
    exact = dequantize(quantize(x, scale, zero, bits=4), scale, zero)
    np.testing.assert_array_equal(
        jax.jit(fake_quantize, static_argnames="bits")(x, scale, zero, bits=4), exact
    )

    def total(x):
        return (fake_quantize(x, scale, zero, bits=4) ** 2).sum()

    first = jax.grad(total)(x)
    np.testing.assert_allclose(first, 2 * exact, rtol=1e-6)
    np.testing.assert_allclose(jax.jvp(total, (x,), (x,))[1], (first * x).sum(), rtol=1e-5)
    assert np.isfinite(jax.jit(jax.hessian(total))(x)).all()


def test_lsq_has_the_papers_gradients():
    bits, least, most = 4, -8, 7
    x, step = numbers(10, 3), np.array([[0.3, 0.5, 2.0]], np.float32)
    weights = numbers(10, 3)
    y = np.clip(np.rint(x / step), least, most) * step
    np.testing.assert_allclose(lsq(jnp.asarray(x), jnp.asarray(step), bits=bits), y, rtol=1e-6)

    def total(x, step):
        return (lsq(x, step, bits=bits) * weights).sum()

    dx, dstep = jax.grad(total, (0, 1))(jnp.asarray(x), jnp.asarray(step))
    ratio = x / step
    inside = (ratio > least) & (ratio < most)
    np.testing.assert_allclose(dx, weights * inside, rtol=1e-6)
    slope = np.where(inside, np.rint(ratio) - ratio, np.clip(ratio, least, most))
    expected = (slope * weights).sum(0, keepdims=True) / np.sqrt(10 * most)
    np.testing.assert_allclose(dstep, expected, rtol=1e-4, atol=1e-5)
    assert np.isfinite(jax.jit(jax.hessian(total, 1))(jnp.asarray(x), jnp.asarray(step))).all()
    mean = np.abs(x).mean(0, keepdims=True)
    np.testing.assert_allclose(lsq_step(x, (1, 3), bits=bits), 2 * mean / np.sqrt(7), rtol=1e-6)


def test_binary_and_ternary_weights():
    w = np.array([[0.5, -2.0], [-1.5, 0.1], [0.0, -0.3]], np.float32)
    codes, scale = binary_codes(w, (1, 2))
    np.testing.assert_array_equal(codes, [[1, -1], [-1, 1], [1, -1]])
    np.testing.assert_allclose(scale, [[2 / 3, 0.8]], rtol=1e-6)
    gradient = jax.grad(lambda w: binary(w, (1, 2)).sum())(w)
    np.testing.assert_allclose(gradient, [[2 / 3, 0], [0, 0.8], [2 / 3, 0.8]], rtol=1e-6)
    codes, scale = ternary_codes(w, (1, 2))  # thresholds 0.7 mean|w|: 0.467, 0.56
    np.testing.assert_array_equal(codes, [[1, -1], [-1, 0], [0, 0]])
    np.testing.assert_allclose(scale, [[1.0, 2.0]], rtol=1e-6)
    np.testing.assert_array_equal(jax.grad(lambda w: ternary(w, (1, 2)).sum())(w), np.ones((3, 2)))
    assert np.all(ternary_codes(np.zeros((2, 2), np.float32), (1, 1))[1] == 0)


def test_quant_noise_quantises_its_share():
    w, quantised = jnp.zeros((100, 100)), jnp.ones((100, 100))
    assert abs(float(quant_noise(w, quantised, jax.random.key(0), 0.3).mean()) - 0.3) < 0.02


@pytest.mark.fast
@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize("size", [1, 5, 8])
def test_packed_bytes_are_those_of_a_loop(width, size):
    low = -(2 ** (width - 1))
    codes = DRAW.integers(low, -low, (3, size)).astype(np.int8)
    if width == 1:
        codes = np.where(codes >= 0, 1, -1).astype(np.int8)
    packed = pack(jnp.asarray(codes), width)
    assert packed.shape == (3, -(-size * width // 8))
    for row, line in zip(codes, np.asarray(packed), strict=True):
        whole = 0
        for i, code in enumerate(row):
            bits = int(code > 0) if width == 1 else int(code) % 2**width
            whole |= bits << (i * width)
        assert list(line) == list(whole.to_bytes(len(line), "little"))
    np.testing.assert_array_equal(unpack(packed, width, size), codes)
    np.testing.assert_array_equal(unpacked(packed, width, size), codes)
    assert [stored_width(bits) for bits in (1, 2, 3, 4, 5, 8)] == [1, 2, 4, 4, 8, 8]


@pytest.mark.fast
@pytest.mark.parametrize("form", ["reference", "cpu"])
@pytest.mark.parametrize("rows", [1, 3])
def test_int_dot_is_a_loop_of_integers(form, rows):
    x, w = integers(rows, 9), integers(9, 4)
    x_zero, w_zero = integers(rows, 1), integers(1, 4)
    with ops.lowering(form):
        for a in (None, x_zero):
            for b in (None, w_zero):
                y = int_dot(jnp.asarray(x), jnp.asarray(w), x_zero=a, w_zero=b)
                left = x.astype(np.int64) - (0 if a is None else a.astype(np.int64))
                right = w.astype(np.int64) - (0 if b is None else b.astype(np.int64))
                assert y.dtype == jnp.int32
                np.testing.assert_array_equal(y, left @ right)


@pytest.mark.parametrize("form", ["reference", "cpu"])
@pytest.mark.parametrize(
    ("groups", "kernel", "strides", "dilation", "pads"),
    [
        (1, (3, 2), (2, 1), (1, 2), [(1, 0), (2, 1)]),
        (4, (3, 3), (2, 2), (2, 1), [(1, 1), (0, 1)]),
        (2, (2, 2), (1, 1), (1, 1), [(0, 0), (1, 1)]),
        (1, (1, 1), (1, 1), (1, 1), [(0, 0), (0, 0)]),
    ],
)
def test_int_conv_is_a_loop_of_integers(form, groups, kernel, strides, dilation, pads):
    x, w = integers(2, 7, 6, 4), integers(*kernel, 4 // groups, 8)
    settings = {"strides": strides, "dilation": dilation, "groups": groups}
    for code in (None, 5):
        given = None if code is None else jnp.int8(code)
        with ops.lowering(form):
            y = int_conv(jnp.asarray(x), jnp.asarray(w), padding=pads, pad_code=given, **settings)
        wide = np.pad(x, [(0, 0), *pads, (0, 0)], constant_values=code or 0)
        np.testing.assert_array_equal(y, convolution(wide, w.astype(np.float64), **settings))


def one_in_two(*factors):
    """Quick where the places of the values have an even sum: every value, half the products."""
    for places in np.ndindex(*map(len, factors)):
        values = [factor[k] for factor, k in zip(factors, places, strict=True)]
        yield pytest.param(*values, marks=[pytest.mark.slow] * (sum(places) % 2))


@pytest.mark.parametrize(("rows", "width", "groups"), [*one_in_two([1, 20], [2, 4, 8], [1, 4])])
def test_products_with_packed_codes_are_those_of_the_floats(rows, width, groups):
    """On the CPU's form: few rows go block by block."""
    k, n = 512, 1027  # two blocks at least; a last byte that is not full
    codes = DRAW.integers(-1, 2, (k, n)).astype(np.int8)
    scale, zero = (
        numbers(groups, n, low=0.5, high=1),
        DRAW.integers(-1, 2, (groups, n)).astype(np.int8),
    )
    stored = jnp.asarray(codes) if width == 8 else pack(jnp.asarray(codes), width)
    parts = np.repeat(np.arange(groups), k // groups)
    w = (codes - zero.astype(np.float64)[parts]) * scale[parts]
    settings = {"out": n, "width": width}
    with ops.lowering("cpu"):
        x = numbers(rows, k)
        y = jax.jit(lambda x: weight_only_dot(x, stored, scale, jnp.asarray(zero), **settings))(x)
        np.testing.assert_allclose(y, x.astype(np.float64) @ w, rtol=1e-3, atol=1e-2)
        q, shift = jnp.asarray(integers(rows, k)), jnp.asarray(integers(rows, 1))
        y = jax.jit(lambda q: int8_dot(q, shift, stored, scale, jnp.asarray(zero), **settings))(q)
        want = (np.asarray(q, np.float64) - np.asarray(shift, np.float64)) @ w
        np.testing.assert_allclose(y, want, rtol=1e-4, atol=0.5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: code_range(9), ValueError, "bits from 2 to 8. Got 9"),
        (lambda: code_range(1), ValueError, "bits from 2 to 8. Got 1"),
        (lambda: quantize(jnp.ones(3, int), jnp.ones(1)), TypeError, "floating.*Got int32"),
        (lambda: value_range(jnp.ones((6, 2)), (4, 1)), ValueError, r"Got a scale of \(4, 1\)"),
        (lambda: pack(jnp.ones(4, jnp.int8), 3), ValueError, "1, 2 or 4 bits. Got 3"),
        (lambda: pack(jnp.ones(4), 4), TypeError, "int8. Got float32"),
        (lambda: unpack(jnp.ones(4, jnp.uint8), 4, 9), ValueError, "expects 5 bytes.*Got 4"),
        (lambda: stored_width(0), ValueError, "1 to 8 bits. Got 0"),
        (lambda: int_dot(jnp.ones((2, 2)), jnp.ones((2, 2))), TypeError, "int8.*Got float32"),
    ],
)
def test_bad_input_is_refused_in_words(call, error, message):
    with pytest.raises(error, match=message):
        call()
