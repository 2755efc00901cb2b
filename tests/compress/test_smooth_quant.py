# SPDX-License-Identifier: Apache-2.0
"""SmoothQuant: the formula by hand, outputs to 1e-5, int8 with planted outlier channels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import compress, layers, models
from tests.compress.test_apply import logits, made, reloaded

RNG = np.random.default_rng(0)
TOKENS = np.asarray(RNG.integers(0, 32, (4, 8)), np.int32)
GPT2 = {"vocabulary": 32, "max_length": 8, "features": 16, "depth": 1, "num_heads": 2}


def gpt2() -> nnx.Module:
    """Two channels of each norm 50 times as large, the rows that read them as much smaller."""
    model = models.create("gpt2", **GPT2, rngs=nnx.Rngs(0))
    factor = np.ones(16, np.float32)
    factor[[1, 5]] = 50
    for block in model.blocks:
        attention = block.attention
        for norm in (block.norm_1, block.norm_2):
            norm.scale.set_value(norm.scale[...] * factor)
        for linear in (attention.query, attention.key, attention.value, block.mlp.up):
            linear.kernel.set_value(8 * linear.kernel[...] / factor[:, None])
    model.eval()
    return model


class Plain(nnx.Module):
    """Plain nnx: a norm, attention of LinearGenerals, a norm, linear - relu - linear."""

    def __init__(self, rngs: nnx.Rngs):
        self.norm_1 = nnx.RMSNorm(8, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs)
        self.norm_2 = nnx.LayerNorm(8, use_bias=False, rngs=rngs)
        self.up = nnx.Linear(8, 16, rngs=rngs)
        self.down = nnx.Linear(16, 8, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attention(self.norm_1(x))
        return x + self.down(jax.nn.relu(self.up(self.norm_2(x))))


def one(norm: nnx.Module) -> nnx.Module:
    linear = nnx.Linear(2, 1, use_bias=False, rngs=nnx.Rngs(0))
    linear.kernel.set_value(jnp.asarray([[0.25], [-4.0]]))
    return nnx.Sequential(norm, linear)


def test_numbers_by_hand():
    norm = layers.LayerNorm(2, epsilon=0.0, rngs=nnx.Rngs(0))
    norm.scale.set_value(jnp.asarray([4.0, 1.0]))
    norm.bias.set_value(jnp.asarray([0.0, 3.0]))
    x = np.asarray([[1, -1], [0, 2]], np.float32)  # normalised: (1, -1), (-1, 1)
    small, log = compress.apply(one(norm), compress.SmoothQuant(), example=x, data=[x[:1], x[1:]])
    # max|X| = (4, 4), max|W| = (1/4, 4): s = (4, 1).
    np.testing.assert_allclose(small.layers[0].scale[...], [1, 1], rtol=1e-6)
    np.testing.assert_allclose(small.layers[0].bias[...], [0, 3], rtol=1e-6)
    np.testing.assert_allclose(small.layers[1].kernel[...], [[1], [-4]], rtol=1e-6)
    assert {row.path: row.why for row in log.touched()} == {
        "layers/0": "outputs of at most 4, now 4",
        "layers/1": "inputs smoothed by layers/0",
    }
    small, _ = compress.apply(one(norm), compress.SmoothQuant(alpha=1.0), example=x, data=[x])
    np.testing.assert_allclose(small.layers[1].kernel[...], [[1], [-16]], rtol=1e-6)


@pytest.mark.parametrize("activations", ["dynamic", pytest.param("static", marks=pytest.mark.slow)])
def test_int8_with_outliers(activations):
    model = gpt2()
    int8 = compress.Quantize("blocks/**", activations=activations, keep_ends=False)
    given = {"example": TOKENS[:1], "data": [TOKENS]}
    smooth, log = compress.apply(model, compress.SmoothQuant("blocks/**"), **given)
    expected = logits(model, TOKENS)
    np.testing.assert_allclose(logits(smooth, TOKENS), expected, atol=1e-5)
    touched = {row.path for row in log.touched()}
    attention = {f"blocks/0/attention/{name}" for name in ("query", "key", "value")}
    assert attention | {"blocks/0/norm_1", "blocks/0/norm_2", "blocks/0/mlp/up"} <= touched
    again = reloaded(gpt2, smooth, log.edits)
    np.testing.assert_array_equal(logits(again, TOKENS), logits(smooth, TOKENS))
    errors = [
        np.square(logits(compress.apply(m, int8, **given)[0], TOKENS) - expected).mean()
        for m in (model, smooth)
    ]
    assert errors[1] < errors[0] / 4


def test_plain_nnx():
    model = made(Plain)
    model.eval()
    for norm in (model.norm_1, model.norm_2):
        norm.scale.set_value(jnp.linspace(1, 20, 8))
    x = RNG.normal(size=(2, 5, 8)).astype(np.float32)
    small, log = compress.apply(model, compress.SmoothQuant(), example=x, data=[x, 2 * x])
    expected = logits(model, x)
    np.testing.assert_allclose(
        logits(small, x) / abs(expected).max(), expected / abs(expected).max(), atol=1e-5
    )
    touched = {row.path for row in log.touched()}
    assert {"norm_1", "norm_2", "up", "down", "attention/query", "attention/value"} <= touched


def test_reasons_and_refusals():
    x = np.ones((3, 2), np.float32)
    given = {"example": x, "data": [x]}
    bare = one(nnx.LayerNorm(2, use_scale=False, rngs=nnx.Rngs(0)))
    _, log = compress.apply(bare, compress.SmoothQuant(), **given)
    why = {row.path: row.why for row in log.rows}
    assert why["layers/1"] == "fed by layers/0: a LayerNorm without a scale to fold into"
    for norm in (nnx.BatchNorm(2, rngs=nnx.Rngs(0)),):
        model = one(norm)
        model.eval()
        _, log = compress.apply(model, compress.SmoothQuant(), **given)
        assert "a BatchNorm: fold it first" in {r.path: r.why for r in log.rows}["layers/1"]

    class Offset(nnx.RMSNorm):
        """1 + scale, as Gemma has it."""

        def __call__(self, x):
            return super().__call__(x) + x

    _, log = compress.apply(one(Offset(2, rngs=nnx.Rngs(0))), compress.SmoothQuant(), **given)
    assert {r.path: r.why for r in log.rows}["layers/1"] == "fed by layers/0: a Offset"
    norm = nnx.LayerNorm(2, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"alpha in \[0, 1\]"):
        compress.SmoothQuant(alpha=1.5)
    with pytest.raises(ValueError, match="needs data="):
        compress.apply(one(norm), compress.SmoothQuant(), example=x)
    with pytest.raises(ValueError, match="at least one batch"):
        compress.apply(one(norm), compress.SmoothQuant(), example=x, data=[])
    with pytest.raises(ValueError, match="NaN or inf into layers/1"):
        compress.apply(one(norm), compress.SmoothQuant(), example=x, data=[x * np.nan])
