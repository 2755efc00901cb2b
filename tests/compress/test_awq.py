# SPDX-License-Identifier: Apache-2.0
"""AWQ: the searched error against NumPy, outputs to 1e-5, 4 bits with salient channels."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import compress, layers, models
from efficient_layers.compress.awq import output_errors
from tests.compress.test_apply import logits, reloaded
from tests.compress.test_smooth_quant import TOKENS, gpt2, one

RNG = np.random.default_rng(0)


def rounded(w: np.ndarray, bits: int, group: int) -> np.ndarray:
    top = 2 ** (bits - 1) - 1
    out = np.empty_like(w)
    for start in range(0, len(w), group):
        part = w[start : start + group]
        scale = np.abs(part).max(0) / top
        out[start : start + group] = np.clip(np.round(part / scale), -top, top) * scale
    return out


def test_error_against_numpy():
    x = RNG.normal(size=(50, 8)) * [1, 1, 9, 1, 1, 1, 30, 1]
    w = RNG.normal(size=(8, 3))
    mean = np.abs(x).mean(0)
    factors = np.stack([mean**a for a in (0, 0.5, 1)])
    expected = [
        np.square(x @ w - (x / s) @ rounded(w * s[:, None], 4, 4)).sum() / 50 for s in factors
    ]
    got = output_errors(
        jnp.asarray(w, jnp.float32),
        jnp.asarray(x.T @ x / 50, jnp.float32),
        jnp.asarray(factors, jnp.float32),
        layers.QuantSpec(bits=4, granularity="group", group_size=4),
    )
    np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_four_bits_with_salient_channels():
    model, given = gpt2(), {"example": TOKENS[:1], "data": [TOKENS]}
    glob = "blocks/**"
    int4 = compress.Quantize(glob, bits=4, granularity="group", group_size=8, keep_ends=False)
    step = compress.AWQ(glob, bits=4, group_size=8)
    aware, log = compress.apply(model, step, **given)
    expected = logits(model, TOKENS)
    np.testing.assert_allclose(logits(aware, TOKENS), expected, atol=1e-5)
    assert {"blocks/0/norm_2", "blocks/0/mlp/up"} <= {row.path for row in log.touched()}
    again = reloaded(gpt2, aware, log.edits)
    np.testing.assert_array_equal(logits(again, TOKENS), logits(aware, TOKENS))
    errors = [
        np.square(logits(compress.apply(m, int4)[0], TOKENS) - expected).mean()
        for m in (model, aware)
    ]
    assert errors[1] < errors[0] / 2


def test_gated_layer_rescales_the_half_that_is_free():
    model = models.create(
        "decoder", vocabulary=32, max_length=8, features=16, depth=1, num_heads=2, num_kv_heads=1,
        mlp_features=24, head_dim=8, rngs=nnx.Rngs(0),
    )  # fmt: skip
    up = model.blocks[0].mlp.gate_up
    up.kernel.set_value(up.kernel[...] * jnp.asarray(np.tile([1, 1, 20], 16), jnp.float32))
    step = compress.AWQ("blocks/*/mlp/**", group_size=None)
    small, log = compress.apply(model, step, example=TOKENS[:1], data=[TOKENS])
    touched = {row.path: row.why for row in log.touched()}
    assert "of the error at 4 bits" in touched["blocks/0/mlp/down"]
    np.testing.assert_allclose(logits(small, TOKENS), logits(model, TOKENS), atol=1e-5)


def test_two_that_feed_one():
    """Errors of the second are those of what the first has left."""

    class Joined(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.first, self.second = (nnx.LayerNorm(8, rngs=rngs) for _ in range(2))
            self.linear = nnx.Linear(16, 6, rngs=rngs)

        def __call__(self, x):
            return self.linear(jnp.concatenate([self.first(x), self.second(x[:, ::-1])], -1))

    model = Joined(nnx.Rngs(0))
    for norm in (model.first, model.second):
        norm.scale.set_value(jnp.asarray([1, 1, 40, 1, 1, 1, 1, 1], jnp.float32))
    x = RNG.normal(size=(64, 8)).astype(np.float32)
    given = {"example": x[:1], "data": [x]}
    aware, log = compress.apply(model, compress.AWQ(group_size=8), **given)
    expected = logits(model, x)
    np.testing.assert_allclose(logits(aware, x), expected, atol=2e-5)
    why = {row.path: row.why for row in log.touched()}["linear"]
    assert "from first" in why
    assert "from second" in why
    int4 = compress.Quantize("linear", bits=4, granularity="group", group_size=8)
    errors = [
        np.square(logits(compress.apply(m, int4)[0], x) - expected).mean() for m in (model, aware)
    ]
    assert errors[1] < errors[0] / 2


def test_reasons_and_refusals():
    x = np.ones((3, 2), np.float32)
    norm = nnx.LayerNorm(2, rngs=nnx.Rngs(0))
    given = {"example": x, "data": [x]}
    _, log = compress.apply(one(norm), compress.AWQ(group_size=32), **given)
    why = {row.path: row.why for row in log.rows}
    assert why["layers/1"] == "group_size=32 does not divide its 2 inputs"
    _, log = compress.apply(one(norm), compress.AWQ(group_size=2), **given)  # x normalised is 0
    why = {row.path: row.why for row in log.rows}
    assert why["layers/1"] == "no power of mean|X| above 0 lowers the error"
    for settings in ({"grid": 1}, {"bits": 9}, {"group_size": 0}):
        with pytest.raises(ValueError, match="expects"):
            compress.AWQ(**settings)
