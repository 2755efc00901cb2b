# SPDX-License-Identifier: Apache-2.0
"""From training to integers: ranges, conversion, what XLA then runs, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import layers, measure, ops
from efficient_layers.layers import QuantSpec
from tests.layers.case import drawn
from tests.layers.numpy_quant import codes_of, scale_zero

DRAW = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(DRAW.normal(size=shape), jnp.float32)


def named(value):
    """The same in every process: xdist compares."""
    return getattr(value, "__name__", None) or str(value)


def dense(**spec):
    settings = QuantSpec(**spec)
    return drawn(lambda: layers.QuantLinear(16, 6, spec=settings, rngs=nnx.Rngs(0)))


def convolution(**spec):
    settings = QuantSpec(**spec)
    return drawn(lambda: layers.QuantConv(4, 6, (3, 3), 2, spec=settings, rngs=nnx.Rngs(0)))


STATIC = {"activations": "static"}
SPECS = [
    {},
    {"bits": 4, "symmetric": False},
    {"activations": "dynamic"},
    STATIC,
    {**STATIC, "symmetric_activations": False, "percentile": 99.0},
    {**STATIC, "method": "lsq", "bits": 4},
    {"activations": "dynamic", "method": "ternary", "bits": 2},
    {"method": "binary", "bits": 1, "granularity": "tensor"},
]
GROUPS = {"granularity": "group", "group_size": 8}


ALL = [(dense, spec) for spec in (*SPECS, {**GROUPS, "bits": 4}, {**GROUPS, **STATIC})]
ALL += [(convolution, spec) for spec in SPECS]
SLOW = [pytest.param(*one, marks=pytest.mark.slow) for k, one in enumerate(ALL) if k % 5]


@pytest.mark.parametrize(("make", "spec"), [*ALL[::5], *SLOW], ids=named)
def test_converted_layers_compute_the_same(make, spec):
    layer, shape = make(**spec), (3, 16) if make is dense else (3, 5, 6, 4)
    for _ in range(2):
        layer(normal(*shape) + 0.5)  # train mode: static ranges move
    layer.eval()
    twin, x = layer.convert(), normal(*shape)
    expected = jax.jit(lambda x: layer(x))(x)
    np.testing.assert_allclose(jax.jit(lambda x: twin(x))(x), expected, atol=1e-5)
    counted = measure.cost(layer, x), measure.cost(twin, x)
    assert counted[0].params - layer.learned_steps == counted[1].params
    assert counted[0].macs == counted[1].macs
    assert not [p for p, _ in nnx.to_flat_state(nnx.state(twin, nnx.Param)) if p != ("bias",)]


def test_an_embedding_converts():
    for spec in ({"bits": 8}, {"bits": 4, "method": "lsq"}):
        layer = layers.QuantEmbedding(20, 6, spec=QuantSpec(**spec), rngs=nnx.Rngs(0))
        twin, x = layer.convert(), jnp.arange(20)
        np.testing.assert_allclose(twin(x), layer(x), atol=1e-6)
        assert twin.codes[...].dtype == (jnp.uint8 if layer.spec.bits == 4 else jnp.int8)
        assert measure.cost(twin, x).params == 120
    embedding = layers.Embedding(20, 6, rngs=nnx.Rngs(0))
    layer = layers.QuantEmbedding.from_embedding(embedding)
    np.testing.assert_array_equal(layer.embedding[...], embedding.embedding[...])


def test_stored_bytes_are_those_of_packed_codes():
    for bits, stored in ((8, 96), (4, 48), (2, 32), (3, 48)):
        layer = dense(bits=bits).convert()
        assert layer.codes[...].nbytes == stored
        cost = measure.cost(layer, normal(2, 16))
        assert (cost.params, cost.weight_bytes) == (96 + 6, stored + 4 * 6 + 4 * 6)
    binary = dense(bits=1, method="binary").convert()
    assert binary.codes[...].nbytes == 16  # 6 codes in a byte of each row


def executed(layer, x):
    with ops.lowering("cpu"):
        return measure.executed(layer, x)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="what XLA's CPU backend runs")
def test_executed_says_what_runs():
    """int8 where activations are int8, floats where only weights are integers or faked."""
    rows, images = normal(32, 64), normal(2, 8, 8, 16)
    linear = nnx.Linear(64, 128, rngs=nnx.Rngs(0))
    conv = layers.Conv(16, 32, (3, 3), rngs=nnx.Rngs(0))
    int8, int4 = QuantSpec(activations="dynamic"), QuantSpec(bits=4)
    run = executed(layers.IntLinear.from_linear(linear, spec=int8), rows)
    assert (run.int8_dots, run.float_dots) == (1, 0)
    run = executed(layers.IntConv.from_conv(conv, spec=int8), images)
    assert run.convolutions == {"int8": 1}
    for spec in (int4, QuantSpec()):
        run = executed(layers.IntLinear.from_linear(linear, spec=spec), rows)
        assert (run.int8_dots, run.dots) == (0, {"f32": 1})
        run = executed(layers.IntConv.from_conv(conv, spec=spec), images)
        assert "int8" not in {**run.convolutions, **run.dots}
    faked = layers.QuantLinear.from_linear(linear, spec=int8)
    assert executed(faked, rows).dots == {"f32": 1}


def test_static_ranges_are_running_ones():
    layer, first, second = dense(**STATIC, momentum=0.75), normal(4, 16), normal(4, 16)
    layer(first)
    assert (layer.input_low[...], layer.input_high[...]) == (first.min(), first.max())
    layer(second)
    for end, values in ((layer.input_low, np.min), (layer.input_high, np.max)):
        expected = 0.75 * values(first) + 0.25 * values(second)
        np.testing.assert_allclose(end[...], expected, rtol=1e-6)
    layer.eval()
    before = np.array(layer.input_low[...])
    layer(normal(4, 16))
    assert layer.input_low[...] == before
    layer = dense(**STATIC, percentile=90.0)
    layer.calibrate(first)
    np.testing.assert_allclose(layer.input_high[...], np.percentile(first, 90), rtol=1e-5)


def test_codes_are_those_of_a_loop():
    layer = dense(bits=4, **GROUPS, symmetric=False)
    twin, kernel = layer.convert(), np.asarray(layer.kernel[...])
    for o in range(6):
        for g in range(2):
            part = kernel[8 * g : 8 * g + 8, o]
            scale, zero = scale_zero(part, 4, False)
            assert (twin.scale[g, o], twin.zero_point[g, o]) == (scale, zero)
            np.testing.assert_array_equal(
                twin._stored_codes()[8 * g : 8 * g + 8, o], codes_of(part, scale, zero, 4, False)
            )


@pytest.mark.oracle
def test_integer_product_is_qwixs():
    qwix = pytest.importorskip("qwix", reason="qwix, an optional extra, is not installed")
    layer = layers.IntLinear(
        16, 6, spec=QuantSpec(activations="dynamic"), use_bias=False, rngs=nnx.Rngs(0)
    )
    x = normal(5, 16)
    codes, scale, _ = layer._input_codes(x, (5, 1))
    left = qwix.QArray(codes, scale)
    right = qwix.QArray(layer.codes[...], layer.scale[...])
    theirs = qwix.dot_general(left, right, (((1,), (0,)), ((), ())))
    np.testing.assert_allclose(layer(x), theirs, rtol=1e-6)


def test_noise_comes_with_the_call_and_only_in_training():
    layer, x = dense(bits=2, noise=0.5), normal(3, 16)
    first, second = (layer(x, rngs=nnx.Rngs(dropout=seed)) for seed in (0, 1))
    assert not np.array_equal(first, second)
    layer.eval()
    np.testing.assert_array_equal(layer(x), dense(bits=2)(x))


def test_static_without_a_range_is_refused():
    for layer, x in ((dense(**STATIC), normal(2, 16)), (convolution(**STATIC), normal(1, 5, 5, 4))):
        layer.eval()
        with pytest.raises(ValueError, match=r"expects a range.*none yet.*train mode"):
            layer(x)
        with pytest.raises(ValueError, match="expects a range"):
            layer.convert()
        graphdef, state = nnx.split(layer)
        assert np.isnan(
            jax.jit(lambda g, s, x: nnx.merge(g, s)(x), static_argnums=0)(graphdef, state, x)
        ).all()
        layer.calibrate(x)
        assert np.isfinite(layer.convert()(x)).all()


LINEAR = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
CIRCULAR = nnx.Conv(4, 4, (3,), padding="CIRCULAR", rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: QuantSpec(bits=9), ValueError, "bits from 2 to 8. Got 9"),
        (lambda: QuantSpec(bits=1), ValueError, "bits from 2 to 8. Got 1"),
        (lambda: QuantSpec(method="binary"), ValueError, "bits 1. Got 8"),
        (lambda: QuantSpec(method="ternary", bits=1), ValueError, "bits 2. Got 1"),
        (lambda: QuantSpec(method="int"), ValueError, "method to be one of.*Got 'int'"),
        (lambda: QuantSpec(granularity="row"), ValueError, "granularity.*Got 'row'"),
        (lambda: QuantSpec(granularity="group"), ValueError, "group_size.*None"),
        (lambda: QuantSpec(group_size=4), ValueError, "only then"),
        (lambda: QuantSpec(granularity="group", group_size=0), ValueError, "at least 1. Got 0"),
        (lambda: QuantSpec(noise=0), ValueError, r"in \(0, 1\]. Got 0"),
        (lambda: QuantSpec(momentum=1), ValueError, "momentum.*Got 1"),
        (lambda: QuantSpec(percentile=50), ValueError, "percentile.*Got 50"),
        (lambda: QuantSpec(method="lsq", symmetric=False), ValueError, "no zero point"),
        (
            lambda: QuantSpec(method="lsq", **STATIC, symmetric_activations=False),
            ValueError,
            "symmetric_activations=True",
        ),
        (lambda: dense(granularity="group", group_size=5), ValueError, "divides the 16.*Got 5"),
        (lambda: convolution(**GROUPS), ValueError, r'"tensor" or "channel".*"group"'),
        (
            lambda: convolution(symmetric=False, **STATIC),
            ValueError,
            "symmetric weights.*activations=None",
        ),
        (
            lambda: convolution(activations="dynamic", symmetric_activations=False),
            ValueError,
            "one zero point",
        ),
        (lambda: dense().calibrate(normal(2, 16)), ValueError, "static.*Got activations=None"),
        (lambda: dense(**STATIC).calibrate(jnp.full((2, 16), jnp.nan)), ValueError, "finite"),
        (lambda: dense(**STATIC).calibrate(jnp.ones((2, 16), int)), TypeError, "floating.*int32"),
        (
            lambda: layers.QuantConv(4, 4, (3, 3), (2, 2, 2), rngs=nnx.Rngs(0)),
            ValueError,
            r"each of the 2 axes.*Got strides=\(2, 2, 2\)",
        ),
        (
            lambda: layers.IntConv(4, 6, (3,), feature_group_count=4, rngs=nnx.Rngs(0)),
            ValueError,
            "divide.*Got 4",
        ),
        (lambda: layers.IntConv(4, 6, (3,), padding="FULL", rngs=nnx.Rngs(0)), ValueError, "FULL"),
        (lambda: layers.IntConv(4, 0, (3,), rngs=nnx.Rngs(0)), ValueError, "out_features=0"),
        (lambda: dense()(jnp.ones((2, 16), int)), TypeError, "floating.*int32"),
        (lambda: dense()(normal(2, 15)), ValueError, r"16\). Got \(2, 15\)"),
        (lambda: convolution()(normal(2, 5, 5, 3)), ValueError, "h w, 4.*Got"),
        (
            lambda: layers.IntLinear.from_linear(LINEAR, spec=QuantSpec(**STATIC)),
            ValueError,
            "QuantLinear.from_linear",
        ),
        (lambda: layers.QuantLinear.from_linear(CIRCULAR), TypeError, "nnx.Linear. Got Conv"),
        (lambda: layers.QuantConv.from_conv(LINEAR), TypeError, "nnx.Conv. Got Linear"),
        (lambda: layers.IntConv.from_conv(CIRCULAR), ValueError, "zero padding.*CIRCULAR"),
        (
            lambda: layers.QuantEmbedding(4, 4, spec=QuantSpec(bits=3), rngs=nnx.Rngs(0)),
            ValueError,
            "4 or 8 bits.*bits=3",
        ),
    ],
)
def test_bad_input_is_refused_in_words(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_weights_that_are_not_finite_do_not_become_codes():
    layer = dense()
    layer.kernel.set_value(layer.kernel[...].at[0, 0].set(jnp.nan))
    with pytest.raises(ValueError, match=r"finite weights. Got NaN or inf in \(16, 6\)"):
        layer.convert()
