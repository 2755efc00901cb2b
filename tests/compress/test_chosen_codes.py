# SPDX-License-Identifier: Apache-2.0
"""Quantize with methods that choose codes by data: what is stored is what was chosen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import compress, layers, measure
from efficient_layers.compress.calibrate import input_ranges
from efficient_layers.compress.gptq import gptq
from efficient_layers.compress.rounding_problem import Problem
from efficient_layers.ops.pack import unpack
from efficient_layers.ops.quantize import code_range
from tests.compress.test_apply import logits, made, reloaded

DRAW = np.random.default_rng(0)
MIX = DRAW.normal(size=(8, 8))
BATCHES = [(DRAW.normal(size=(30, 8)) @ MIX + 0.5).astype(np.float32) for _ in range(2)]
X = np.concatenate(BATCHES)
IMAGES = [DRAW.normal(size=(4, 6, 6, 4)).astype(np.float32).cumsum(2) for _ in range(2)]


def one(use_bias: bool = True) -> nnx.Module:
    return nnx.Sequential(nnx.Linear(8, 6, use_bias=use_bias, rngs=nnx.Rngs(0)))


class Net(nnx.Module):
    """A convolution, a depthwise one, a grouped one, a head, a layer that is never called."""

    def __init__(self, rngs: nnx.Rngs):
        self.conv = nnx.Conv(4, 6, (3, 3), strides=2, rngs=rngs)
        self.depthwise = layers.DepthwiseConv(6, 3, use_bias=False, rngs=rngs)
        self.grouped = layers.Conv(6, 4, (1, 3), feature_group_count=2, rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)
        self.idle = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in (self.conv, self.depthwise, self.grouped):
            x = jax.nn.relu(layer(x))
        return self.head(x.mean((1, 2)))


def net() -> nnx.Module:
    model = made(Net)
    model.eval()
    return model


def stored(layer: layers.IntLinear) -> np.ndarray:
    if layer.spec.width == 8:
        return np.asarray(layer.codes[...])
    return np.asarray(unpack(layer.codes[...], layer.spec.width, layer.out_features))


def scales(layer: layers.IntLinear) -> tuple[np.ndarray, np.ndarray]:
    """Of every weight, its scale and zero point."""
    scale = np.asarray(layer.scale[...], np.float64)
    zero = np.zeros_like(scale)
    if layer.zero_point is not None:
        zero = np.asarray(layer.zero_point[...], np.float64)
    each = 8 // len(scale)
    return np.repeat(scale, each, 0), np.repeat(zero, each, 0)


SPECS = [
    pytest.param({"bits": 8}, marks=pytest.mark.slow),
    {"bits": 4},
    pytest.param({"bits": 3, "symmetric": False}, marks=pytest.mark.slow),
    {"bits": 4, "granularity": "group", "group_size": 4},
    {"bits": 3, "granularity": "group", "group_size": 2, "symmetric": False},
    pytest.param({"bits": 2, "granularity": "tensor"}, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("method", ["gptq", "adaround"])
@pytest.mark.parametrize("settings", SPECS, ids=str)
def test_stored_codes_are_the_chosen_ones(method, settings):
    model = one()
    step = compress.Quantize("layers/0", method=method, iterations=100, **settings)
    small, log = compress.apply(model, step, data=BATCHES)
    layer = small.layers[0]
    assert isinstance(layer, layers.IntLinear)
    assert layer.spec.method == "affine"
    plain, _ = compress.apply(model, compress.Quantize("layers/0", **settings))
    plain = plain.layers[0]
    np.testing.assert_array_equal(layer.scale[...], plain.scale[...])  # one grid

    kernel = np.asarray(model.layers[0].kernel[...], np.float64)
    scale, zero = (np.broadcast_to(a, kernel.shape) for a in scales(layer))
    moment = X.astype(np.float64).T @ X / len(X)
    least, most = code_range(settings["bits"], symmetric=settings.get("symmetric", True))
    p = Problem(kernel[None], moment[None], scale[None], zero[None], least, most)
    codes, before = stored(layer)[None], stored(plain)[None]
    assert (p.errors(codes) <= p.errors(before) * (1 + 1e-4)).all()
    if method == "gptq":
        np.testing.assert_array_equal(codes, p.better(gptq(p), before))
    if settings["bits"] < 8:
        assert p.errors(codes).sum() < 0.9 * p.errors(before).sum()
    expected = X @ (scale * (codes[0] - zero)) + np.asarray(model.layers[0].bias[...])
    np.testing.assert_allclose(logits(small, X), expected, atol=1e-4)
    assert f"{ {'gptq': 'GPTQ', 'adaround': 'AdaRound'}[method] }: " in log.rows[0].why
    np.testing.assert_array_equal(logits(reloaded(one, small, log.edits), X), logits(small, X))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gptq", "adaround"])
def test_convolutions_grouped_ones_too(method):
    settings = {"bits": 3, "keep_ends": False}
    model = net()
    plain, _ = compress.apply(model, compress.Quantize("**", **settings))
    step = compress.Quantize("**", method=method, iterations=300, **settings)
    small, log = compress.apply(model, step, data=IMAGES)
    why = {row.path: row.why for row in log.touched()}
    assert why["idle"] == "3 bits, to nearest: not called on data"
    assert all("nearest's squared error" in why[name] for name in ("conv", "depthwise", "grouped"))
    # Each layer by itself, on the inputs that the float model makes.
    x = np.concatenate(IMAGES)
    for name in ("conv", "depthwise", "grouped"):
        expected = getattr(model, name)(x)
        errors = [float(jnp.square(getattr(m, name)(x) - expected).mean()) for m in (small, plain)]
        assert errors[0] <= errors[1]
        share = float(why[name].rpartition(": ")[2].partition(" ")[0])
        np.testing.assert_allclose(errors[0] / errors[1], share, rtol=0.02)
        x = jax.nn.relu(expected)
    np.testing.assert_array_equal(
        logits(reloaded(net, small, log.edits), IMAGES[0]), logits(small, IMAGES[0])
    )


def test_int8_dots_run_and_ranges_are_calibrated():
    for activations in ("dynamic", "static"):
        step = compress.Quantize("layers/0", method="gptq", activations=activations)
        small, log = compress.apply(one(), step, data=BATCHES)
        found = measure.executed(small, X)
        assert found.int8_dots == 1
        assert found.float_dots == 0
        assert float(np.abs(logits(small, X) - logits(one(), X)).max()) < 0.2
    assert "inputs from" in log.rows[0].why
    assert "GPTQ: " in log.rows[0].why


@pytest.mark.slow
def test_what_int8_convolutions_run_as():
    """On a CPU a 1x1 is a product of int8; XLA widens a 3x3, and `executed` says so."""
    for size, expected in ((1, "int8"), (3, "int32")):
        model = nnx.Sequential(nnx.Conv(4, 6, (size, size), rngs=nnx.Rngs(0)))
        step = compress.Quantize("**", method="gptq", activations="static", keep_ends=False)
        small, _ = compress.apply(model, step, data=IMAGES)
        found = measure.executed(small, IMAGES[0])
        assert set(found.dots) | set(found.convolutions) == {expected}


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("method", ["affine", "gptq", "ternary"])
def test_bias_correction_takes_the_mean_error_away(method, use_bias):
    settings = {"method": method, "bits": 2 if method == "ternary" else 3}
    model = one(use_bias)
    step = compress.Quantize("layers/0", bias_correction=True, **settings)
    small, log = compress.apply(model, step, data=BATCHES)
    assert small.layers[0].use_bias
    expected = np.asarray(logits(model, X)).mean(0)
    np.testing.assert_allclose(np.asarray(logits(small, X)).mean(0), expected, atol=1e-5)
    assert log.rows[0].why.endswith(", bias corrected")
    plain, _ = compress.apply(model, compress.Quantize("layers/0", **settings), data=BATCHES)
    error = np.abs(np.asarray(logits(plain, X)).mean(0) - expected).max()
    assert error > 1e-3  # there was something to correct
    empty = lambda: one(use_bias)  # noqa: E731
    np.testing.assert_array_equal(logits(reloaded(empty, small, log.edits), X), logits(small, X))


@pytest.mark.slow
def test_bias_correction_of_convolutions():
    step = compress.Quantize("**", bits=4, bias_correction=True, keep_ends=False)
    model = net()
    small, _ = compress.apply(model, step, data=IMAGES)
    x = np.concatenate(IMAGES)
    for name in ("conv", "depthwise", "grouped"):
        expected, got = getattr(model, name)(x), getattr(small, name)(x)
        np.testing.assert_allclose(got.mean((0, 1, 2)), expected.mean((0, 1, 2)), atol=1e-5)
        x = jax.nn.relu(expected)


@pytest.mark.slow
def test_sequential_sees_what_quantised_layers_make():
    model = nnx.Sequential(
        nnx.Linear(8, 8, rngs=nnx.Rngs(0)), nnx.relu, nnx.Linear(8, 6, rngs=nnx.Rngs(1))
    )
    settings = {"method": "gptq", "bits": 2, "keep_ends": False, "bias_correction": True}
    step = compress.Quantize("**", sequential=True, **settings)
    small, _ = compress.apply(model, step, example=X, data=BATCHES)
    # By hand: the first layer, then the second of what is left.
    first, _ = compress.apply(model, compress.Quantize("layers/0", **settings), data=BATCHES)
    both, _ = compress.apply(first, compress.Quantize("layers/2", **settings), data=BATCHES)
    at_once, _ = compress.apply(model, compress.Quantize("**", **settings), data=BATCHES)
    for i in (0, 2):
        np.testing.assert_array_equal(small.layers[i].codes[...], both.layers[i].codes[...])
        np.testing.assert_allclose(small.layers[i].bias[...], both.layers[i].bias[...], atol=1e-6)
    assert (np.asarray(at_once.layers[2].codes[...]) != both.layers[2].codes[...]).any()


def test_low_rank_factors_and_embeddings():
    model = nnx.Sequential(nnx.Embed(11, 8, rngs=nnx.Rngs(0)), *one().layers)
    steps = [
        compress.LowRank("layers/1", rank=3),
        compress.Quantize("**", bits=4, method="gptq", bias_correction=True, keep_ends=False),
    ]
    tokens = np.arange(11, dtype=np.int32)
    small, log = compress.apply(model, steps, data=[tokens])
    why = {row.path: row.why for row in log.touched() if row.number == 1}
    assert why["layers/0"] == "4 bits, to nearest: an embedding multiplies nothing"
    assert why["layers/1"].count("GPTQ: ") == 2
    low, _ = compress.apply(model, steps[0])
    mean = np.asarray(logits(low, tokens)).mean(0)
    assert np.abs(np.asarray(logits(small, tokens)).mean(0) - mean).max() < 0.1


def test_entropy_calibration():
    heavy = [np.append(DRAW.normal(size=799), 40).astype(np.float32).reshape(100, 8)]
    found = {
        clip: input_ranges(one(), ["layers/0"], heavy, clip=clip, loss=None)["layers/0"]
        for clip in ("minmax", "entropy")
    }
    assert found["minmax"].high == 40
    assert 2 < found["entropy"].high < 20
    low, top = found["minmax"].low, found["entropy"].high
    assert found["entropy"].low == max(low, -top)
    zeros = input_ranges(one(), ["layers/0"], [0 * heavy[0]], clip="entropy", loss=None)
    assert zeros["layers/0"][:2] == (0, 0)
    step = compress.Quantize("layers/0", activations="static", clip="entropy")
    _, log = compress.apply(one(), step, data=heavy)
    assert f"to {found['entropy'].high:.4g}" in log.rows[0].why


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "gptq", "mode": "qat"}, 'use mode="ptq"'),
        ({"bias_correction": True, "mode": "qat"}, 'use mode="ptq"'),
        ({"sequential": True}, "expects sequential=True with method"),
        ({"method": "gptq", "order": "best"}, "order to be one of"),
        ({"method": "gptq", "damping": 0.0}, "damping in"),
        ({"method": "adaround", "iterations": 0}, "at least 1 iteration"),
        ({"method": "rtn"}, "method to be one of"),
        ({"clip": "kl"}, "clip to be one of"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        compress.Quantize("**", **settings)


def test_data_is_asked_for():
    for settings in ({"method": "gptq"}, {"method": "adaround"}, {"bias_correction": True}):
        with pytest.raises(ValueError, match="needs data="):
            compress.apply(one(), compress.Quantize("layers/0", **settings))
    with pytest.raises(ValueError, match="at least one batch"):
        compress.apply(one(), compress.Quantize("layers/0", method="gptq"), data=[])
    step = compress.Quantize("layers/0", method="gptq", sequential=True)
    with pytest.raises(ValueError, match=r"needs data=.*needs example="):
        compress.apply(one(), step)
