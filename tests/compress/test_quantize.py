# SPDX-License-Identifier: Apache-2.0
"""Quantize against NumPy: weights, static ranges, the integers of a trained model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import compress, layers
from efficient_layers.compress.calibrate import RATIOS, input_ranges
from tests.compress.test_apply import logits, made, reloaded

RNG = np.random.default_rng(0)
KERNEL, BIAS = RNG.normal(size=(6, 4)), RNG.normal(size=4)
BATCHES = [RNG.normal(size=(5, 6)).astype(np.float32) * s for s in (1, 3)]
X = RNG.normal(size=(7, 6)).astype(np.float32)


class Net(nnx.Module):
    """Tokens, a convolution, a depthwise one, one that standardises its kernel, a head."""

    def __init__(self, rngs: nnx.Rngs):
        self.embed = nnx.Embed(11, 6, rngs=rngs)
        self.depthwise = layers.DepthwiseConv(6, (3,), rngs=rngs)
        self.conv = nnx.Conv(6, 8, (3,), rngs=rngs)
        self.special = layers.StandardizedConv(8, 8, (1,), rngs=rngs)
        self.hidden = nnx.Linear(8, 8, rngs=rngs)
        self.head = nnx.Linear(8, 4, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = jax.nn.relu(self.conv(self.depthwise(self.embed(tokens))))
        x = self.special(x).mean(1)
        return self.head(jax.nn.relu(self.hidden(x)))


TOKENS = np.asarray(RNG.integers(0, 11, (3, 9)), np.int32)


def net() -> nnx.Module:
    model = made(Net)
    model.eval()
    return model


def one() -> nnx.Module:
    model = nnx.Sequential(nnx.Linear(6, 4, rngs=nnx.Rngs(0)))
    model.layers[0].kernel.set_value(jnp.asarray(KERNEL, jnp.float32))
    model.layers[0].bias.set_value(jnp.asarray(BIAS, jnp.float32))
    return model


def codes(w: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    top = 2 ** (bits - 1) - 1
    scale = np.abs(w).max(0, keepdims=True) / top
    return np.clip(np.round(w / scale), -top, top), scale


@pytest.mark.parametrize("bits", [4, pytest.param(8, marks=pytest.mark.slow)])
def test_weights_alone(bits):
    small, log = compress.apply(one(), compress.Quantize("layers/0", bits=bits))
    q, scale = codes(KERNEL, bits)
    np.testing.assert_allclose(logits(small, X), X @ (q * scale) + BIAS, atol=1e-5)
    # Codes, a scale and a bias a channel.
    assert log.after.bytes == 6 * 4 * bits // 8 + 4 * 4 + 4 * 4
    assert log.after.params == log.before.params == 28


def test_static_ptq_is_the_integer_product():
    step = compress.Quantize("layers/0", activations="static")
    small, log = compress.apply(one(), step, data=BATCHES)
    low, high = min(b.min() for b in BATCHES), max(b.max() for b in BATCHES)
    scale = (high - low) / 255
    zero = np.round(-128 - low / scale)
    x = np.clip(np.round(X / scale) + zero, -128, 127)
    q, weight_scale = codes(KERNEL, 8)
    expected = ((x - zero) @ q) * scale * weight_scale + BIAS
    np.testing.assert_allclose(logits(small, X), expected, atol=1e-5)
    assert log.rows[0].why == f"8 bits, inputs from {low:.4g} to {high:.4g}"


def test_ends_stay_float_by_default():
    step = compress.Quantize("**", activations="static")
    model = net()
    small, log = compress.apply(model, step, example=TOKENS, data=[TOKENS])
    assert isinstance(small.embed, nnx.Embed)
    assert isinstance(small.head, nnx.Linear)
    assert isinstance(small.special, layers.StandardizedConv)
    assert {row.path for row in log.touched()} == {"depthwise", "conv", "hidden"}
    why = {row.path: row.why for row in log.skipped()}
    assert "the first layer stays float" in why["embed"]
    assert "the last layer stays float" in why["head"]
    assert why["special"] == "Quantize takes no StandardizedConv"
    expected = logits(model, TOKENS)
    assert float(abs(logits(small, TOKENS) - expected).max()) < 0.05 * float(abs(expected).max())
    np.testing.assert_array_equal(
        logits(reloaded(net, small, log.edits), TOKENS), logits(small, TOKENS)
    )


@pytest.mark.slow
@pytest.mark.parametrize("activations", [None, "dynamic", "static"])
def test_all_kinds_of_layers_and_back_from_json(activations):
    step = compress.Quantize("**", activations=activations, keep_ends=False)
    model = net()
    small, log = compress.apply(model, step, data=[TOKENS])
    for name in ("IntEmbedding", "IntConv", "IntLinear"):
        assert any(type(m).__name__ == name for _, m in nnx.iter_modules(small))
    expected = logits(model, TOKENS)
    assert float(abs(logits(small, TOKENS) - expected).max()) < 0.05 * float(abs(expected).max())
    again = reloaded(net, small, log.edits)
    np.testing.assert_array_equal(logits(again, TOKENS), logits(small, TOKENS))


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [{"activations": "static"}, {"bits": 4}, {"method": "lsq", "activations": "static"}],
    ids=str,
)
def test_qat_trains_and_finalize_keeps_the_logits(settings):
    step = compress.Quantize("**", mode="qat", keep_ends=False, **settings)
    small, log = compress.apply(net(), step, data=[TOKENS])
    assert isinstance(small.hidden, layers.QuantLinear)
    small.eval()
    assert "float masters" in log.rows[0].why
    gradient = nnx.grad(lambda m: (m(TOKENS) ** 2).sum())(small)
    assert float(abs(gradient["hidden"]["kernel"][...]).max()) > 0
    done, more = compress.apply(small, compress.Finalize())
    np.testing.assert_allclose(logits(done, TOKENS), logits(small, TOKENS), atol=1e-5)
    np.testing.assert_array_equal(logits(compress.finalize(small), TOKENS), logits(done, TOKENS))
    assert isinstance(done.hidden, layers.IntLinear)
    assert isinstance(small.hidden, layers.QuantLinear)
    again = reloaded(net, done, log.edits + more.edits)
    np.testing.assert_array_equal(logits(again, TOKENS), logits(done, TOKENS))


def test_qat_of_one_layer_and_finalize():
    step = compress.Quantize("layers/0", mode="qat", bits=4)
    small, _ = compress.apply(one(), step)
    assert isinstance(small.layers[0], layers.QuantLinear)
    q, scale = codes(KERNEL, 4)
    np.testing.assert_allclose(logits(small, X), X @ (q * scale) + BIAS, atol=1e-5)
    np.testing.assert_allclose(logits(compress.finalize(small), X), logits(small, X), atol=1e-5)


def test_finalize_needs_a_range():
    step = compress.Quantize("layers/0", mode="qat", activations="static")
    small, _ = compress.apply(one(), step)
    with pytest.raises(ValueError, match="layers/0: QuantLinear with activations"):
        compress.finalize(small)


def test_low_rank_then_integers():
    steps = [
        compress.LowRank("layers/0", rank=2),
        compress.Quantize("layers/0", activations="static"),
    ]
    small, log = compress.apply(one(), steps, data=[X])
    assert [type(part).__name__ for part in (small.layers[0].reduce, small.layers[0].expand)] == [
        "IntLinear",
        "IntLinear",
    ]
    u, s, v = np.linalg.svd(KERNEL, full_matrices=False)
    expected = X @ (u[:, :2] * s[:2]) @ v[:2] + BIAS
    assert np.abs(logits(small, X) - expected).max() < 0.03 * np.abs(expected).max()
    assert log.rows[1].why.startswith("reduce: 8 bits, inputs from")
    np.testing.assert_array_equal(logits(reloaded(one, small, log.edits), X), logits(small, X))


def test_learned_step_begins_at_the_paper_s_value():
    step = compress.Quantize("layers/0", mode="qat", method="lsq", activations="static")
    small, _ = compress.apply(one(), step, data=BATCHES[:1])
    expected = 2 * np.abs(BATCHES[0]).mean() / np.sqrt(127)
    np.testing.assert_allclose(small.layers[0].input_step[...], expected, rtol=1e-5)


def test_clipped_ranges():
    settings = {"loss": None, "percentile": 90.0}
    got = input_ranges(one(), ["layers/0"], BATCHES, clip="percentile", **settings)["layers/0"]
    expected = np.mean([np.percentile(b, (10, 90)) for b in BATCHES], 0)
    np.testing.assert_allclose(got[:2], expected, rtol=1e-5)

    heavy = [np.append(np.linspace(-1, 1, 599), 20).astype(np.float32).reshape(100, 6)]
    got = input_ranges(one(), ["layers/0"], heavy, clip="mse", symmetric=True, loss=None)

    def error(ratio: float) -> float:
        scale = 20 * ratio / 127
        return np.square(np.clip(np.round(heavy[0] / scale), -127, 127) * scale - heavy[0]).sum()

    best = min(RATIOS, key=error)
    np.testing.assert_allclose(got["layers/0"].high, 20 * best, rtol=1e-6)


def test_loss_feeds_the_model_where_a_batch_holds_more():
    step = compress.Quantize("layers/0", activations="static")
    data = [{"x": b, "y": 0} for b in BATCHES]
    small, _ = compress.apply(one(), step, data=data, loss=lambda m, b: m(b["x"]).sum())
    expected, _ = compress.apply(one(), step, data=BATCHES)
    np.testing.assert_array_equal(logits(small, X), logits(expected, X))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bits": 9}, "expects bits from 2 to 8"),
        ({"mode": "later"}, "Quantize expects mode"),
        ({"method": "lsq"}, "needs no training"),
        ({"noise": 0.5}, "needs no training"),
        ({"percentile": 100.0}, "percentile in"),
        ({"granularity": "group"}, "group_size"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        compress.Quantize("**", **settings)


def test_bad_input():
    static = compress.Quantize("layers/0", activations="static")
    with pytest.raises(ValueError, match="needs data="):
        compress.apply(one(), static)
    with pytest.raises(ValueError, match="needs example="):
        compress.apply(one(), compress.Quantize("**"))
    with pytest.raises(ValueError, match="at least one batch"):
        compress.apply(one(), static, data=[])
    with pytest.raises(ValueError, match="NaN or inf into layers/0"):
        compress.apply(one(), static, data=[np.full((2, 6), np.inf, np.float32)])
    with pytest.raises(TypeError) as caught:
        compress.apply(one(), static, data=[np.ones((2, 5), np.float32)])
    assert "batch 0 of data, of shapes (2, 5)" in caught.value.__notes__[-1]
    broken = one()
    broken.layers[0].kernel.set_value(jnp.full((6, 4), jnp.nan))
    with pytest.raises(ValueError, match="NaN or inf in layers/0"):
        compress.apply(broken, compress.Quantize("layers/0"))


def test_what_a_layer_cannot_do_is_skipped_with_its_reason():
    step = compress.Quantize("**", bits=3, keep_ends=False, granularity="group", group_size=3)
    _, log = compress.apply(net(), step)
    why = {row.path: row.why for row in log.skipped()}
    assert "4 or 8 bits" in why["embed"]
    assert 'granularity "tensor" or "channel"' in why["conv"]
    assert "divides the 8 inputs" in why["hidden"]
