# SPDX-License-Identifier: Apache-2.0
"""Equalize: ranges by hand, chains against NumPy, outputs to 1e-5, int8 for a tensor saved."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import compress, layers, models
from tests.compress.test_apply import logits, made, reloaded
from tests.compress.test_fold import drawn

RNG = np.random.default_rng(0)


class Net(nnx.Module):
    """A chain of convolutions, pooling, a flattening, a head: every kind of pair."""

    def __init__(self, rngs: nnx.Rngs):
        self.conv = layers.Conv(3, 4, (3, 3), rngs=rngs)
        self.depthwise = layers.DepthwiseConv(4, 3, multiplier=2, use_bias=False, rngs=rngs)
        self.grouped = nnx.Conv(8, 6, (1, 1), feature_group_count=2, rngs=rngs)
        self.prelu = nnx.PReLU()
        self.hidden = nnx.Linear(6 * 4, 5, rngs=rngs)
        self.drop = nnx.Dropout(0.5, deterministic=False, rngs=rngs)
        self.head = nnx.Linear(5, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = jax.nn.relu(self.conv(x))
        x = self.prelu(self.grouped(jax.nn.leaky_relu(self.depthwise(x))))
        x = nnx.max_pool(x, (2, 2), (2, 2)).reshape(x.shape[0], -1)
        return self.head(self.drop(jax.nn.relu(self.hidden(x))))


X = np.asarray(RNG.normal(size=(2, 4, 4, 3)), np.float32)


def net() -> nnx.Module:
    model = drawn(made(Net))
    for name in ("conv", "depthwise", "grouped", "hidden"):
        layer = getattr(model, name)
        spread = np.exp(np.random.default_rng(1).normal(size=layer.kernel.shape[-1]))
        layer.kernel.set_value(layer.kernel[...] * spread.astype(np.float32))
    return model


def two(first, second, bias=(1.0, 1.0)) -> nnx.Module:
    first, second = np.asarray(first, np.float32), np.asarray(second, np.float32)
    rngs = nnx.Rngs(0)
    a, b = nnx.Linear(*first.shape, rngs=rngs), nnx.Linear(*second.shape, rngs=rngs)
    a.kernel.set_value(jnp.asarray(first))
    a.bias.set_value(jnp.asarray(bias, jnp.float32))
    b.kernel.set_value(jnp.asarray(second))
    return nnx.Sequential(a, jax.nn.relu, b)


def test_numbers_by_hand():
    # r1 = (8, 2), r2 = (2, 0): s = (2, untouched).
    small, log = compress.apply(
        two([[8, 1], [4, -2]], [[1, -2], [0, 0]]),
        compress.Equalize(),
        example=np.ones((1, 2), np.float32),
    )
    first, _, second = small.layers
    np.testing.assert_allclose(first.kernel[...], [[4, 1], [2, -2]], rtol=1e-6)
    np.testing.assert_allclose(first.bias[...], [0.5, 1])
    np.testing.assert_allclose(second.kernel[...], [[2, -4], [0, 0]], rtol=1e-6)
    assert [row.path for row in log.touched()] == ["layers/0", "layers/2"]
    assert "ranges 4x apart, now 2x" in log.touched()[0].why
    assert log.edits == []


def test_outputs_stay_and_ranges_meet():
    model = net()
    small, log = compress.apply(model, compress.Equalize("**"), example=X)
    assert len(log.touched()) == 5
    np.testing.assert_allclose(logits(small, X), logits(model, X), atol=1e-5)
    conv = np.abs(small.conv.kernel[...]).max((0, 1, 2))
    depthwise = np.abs(small.depthwise.kernel[...]).reshape(9, 4, 2).max((0, 2))
    np.testing.assert_allclose(conv, depthwise, rtol=1e-3)
    outputs = np.abs(small.depthwise.kernel[...]).max((0, 1, 2))
    rows = np.abs(small.grouped.kernel[...]).reshape(4, 2, 3).max(2).T.ravel()  # by group
    np.testing.assert_allclose(outputs, rows, rtol=1e-3)
    grouped = np.abs(small.grouped.kernel[...]).max((0, 1, 2))
    flat = np.abs(small.hidden.kernel[...]).reshape(4, 6, 5).max((0, 2))
    np.testing.assert_allclose(grouped, flat, rtol=1e-3)
    again = reloaded(net, small, log.edits)
    np.testing.assert_array_equal(logits(again, X), logits(small, X))


def test_chain_against_numpy():
    weights = [RNG.normal(size=(4, 4)) * np.exp(RNG.normal(size=4)) for _ in range(4)]
    model = nnx.Sequential(*(nnx.Linear(4, 4, use_bias=False, rngs=nnx.Rngs(0)) for _ in weights))
    for layer, weight in zip(model.layers, weights, strict=True):
        layer.kernel.set_value(jnp.asarray(weight, jnp.float32))
    weights = [np.asarray(layer.kernel[...], np.float64) for layer in model.layers]
    for _ in range(200):
        for a, b in itertools.pairwise(weights):
            s = np.sqrt(np.abs(a).max(0) / np.abs(b).max(1))
            a /= s
            b *= s[:, None]
    small, _ = compress.apply(model, compress.Equalize(), example=np.ones((1, 4), np.float32))
    for layer, weight in zip(small.layers, weights, strict=True):
        np.testing.assert_allclose(layer.kernel[...], weight, rtol=1e-3)


def test_int8_of_a_tensor_is_saved():
    rng = np.random.default_rng(0)
    first = rng.normal(size=(16, 32)) * np.logspace(-3, 0, 32)
    model = two(first, rng.normal(size=(32, 4)), np.zeros(32))
    x = rng.normal(size=(64, 16)).astype(np.float32)
    rough = compress.Quantize("layers/*", granularity="tensor", keep_ends=False)
    errors = []
    for steps in ([rough], [compress.Equalize(), rough]):
        small, _ = compress.apply(model, steps, example=x)
        errors.append(float(np.square(logits(small, x) - logits(model, x)).mean()))
    assert errors[1] < errors[0] / 2


def test_reasons():
    class Reasons(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.clipped = nnx.Linear(4, 4, rngs=rngs)
            self.normed = nnx.Linear(4, 4, rngs=rngs)
            self.norm = nnx.BatchNorm(4, rngs=rngs)
            self.unmatched = nnx.Linear(4, 4, rngs=rngs)
            self.last = nnx.Linear(4, 4, rngs=rngs)
            self.unused = nnx.Linear(4, 4, rngs=rngs)

        def __call__(self, x):
            x = self.norm(self.normed(jax.nn.relu6(self.clipped(x))), use_running_average=True)
            return self.last(self.unmatched(x))

    _, log = compress.apply(made(Reasons), compress.Equalize(), example=np.ones((1, 4), np.float32))
    why = {row.path: row.why for row in log.rows}
    assert "ReLU6 is not scale-free" in why["clipped"]
    assert why["normed"] == "it feeds norm, a BatchNorm: fold it first (FoldBatchNorm)"
    assert why["unused"] == "it is not called on the example"
    assert why["last"] == "inputs balanced with unmatched"
    with pytest.raises(ValueError, match="tolerance above 0"):
        compress.Equalize(sweeps=0)
    with pytest.raises(ValueError, match=r"NaN or inf in layers/0/kernel"):
        compress.apply(
            two([[np.nan, 1]], [[1], [1]]), compress.Equalize(), example=np.ones((1, 1), np.float32)
        )


def test_consumers_have_to_match():
    _, log = compress.apply(
        two(np.ones((2, 2)), np.ones((2, 2))),
        compress.Equalize("layers/0"),
        example=np.ones((1, 2), np.float32),
    )
    assert log.rows[0].why == "it feeds layers/2, too, which the step does not match"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "shufflenet_v2", "squeezenet"])
def test_families(name):
    model = drawn(models.create(name, num_classes=4, rngs=nnx.Rngs(0)))
    x = np.asarray(np.random.default_rng(0).normal(size=(1, 32, 32, 3)), np.float32)
    steps = [] if name == "squeezenet" else [compress.FoldBatchNorm()]  # which has none
    folded, _ = compress.apply(model, steps, example=x)
    small, log = compress.apply(folded, compress.Equalize(), example=x)
    expected = logits(folded, x)
    scale = abs(expected).max()
    np.testing.assert_allclose(logits(small, x) / scale, expected / scale, atol=1e-5)
    assert log.touched()
