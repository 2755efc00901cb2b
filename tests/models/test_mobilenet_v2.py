# SPDX-License-Identifier: Apache-2.0
"""MobileNetV2: published sizes, features, intermediates, dropout."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import efficient_layers as el

pytestmark = pytest.mark.fast

# TF-Slim's README (third-party table slim_mobilenet_v2): MACs in millions, rounded or truncated,
# and weights in millions without batch normalisation at 1,001 classes.
SLIM = {
    (1.4, 224): (582, 6.06),
    (1.3, 224): (509, 5.34),
    (1.0, 224): (300, 3.47),
    (1.0, 96): (56, 3.47),
    (0.75, 160): (107, 2.61),
    (0.5, 128): (32, 1.95),
    (0.35, 96): (11, 1.66),
}


def abstract(**fields):
    return nnx.eval_shape(lambda: el.models.create("mobilenet_v2", rngs=nnx.Rngs(0), **fields))


def count(model, filter_=nnx.Param):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, filter_)))


def test_parameters_at_width_1():
    model = abstract()
    assert count(model) == 3_504_872
    # Two running statistics stand beside each scale and bias.
    assert count(model, nnx.BatchStat) == 34_112


def test_cost_at_224():
    cost = el.measure.cost(abstract(), jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32))
    assert (cost.params, cost.macs, cost.activations) == (3_504_872, 300_774_272, 6_679_112)


@pytest.mark.parametrize(("width", "size"), SLIM)
def test_slim_table(width, size):
    macs, params = SLIM[width, size]
    model = abstract(width=width, num_classes=1001)
    cost = el.measure.cost(model, jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32))
    assert macs in (int(cost.macs / 1e6), round(cost.macs / 1e6))
    weights = (cost.params - count(model, nnx.BatchStat)) / 1e6
    assert abs(weights - params) < 0.01


def test_digits_variant_is_small():
    assert count(abstract(variant="digits")) <= 150_000


@pytest.fixture(scope="module")
def small():
    return el.models.create("mobilenet_v2", variant="digits", width=0.35, rngs=nnx.Rngs(0))


@pytest.mark.slow
def test_out_names_the_intermediates(small):
    model = nnx.view(small, deterministic=True, use_running_average=True)
    out = {}
    logits = model(jnp.ones((2, 8, 8, 1)), out=out)
    blocks = [f"blocks/{i}" for i in range(len(model.blocks))]
    assert list(out) == ["stem", *blocks, "head", "features", "logits"]
    assert out["logits"] is logits
    assert logits.shape == (2, 10)
    np.testing.assert_allclose(out["features"], out["head"].mean((1, 2)), rtol=1e-6)


def test_features_without_classifier():
    def run():
        model = el.models.create(
            "mobilenet_v2", variant="digits", width=0.35, num_classes=0, rngs=nnx.Rngs(0)
        )
        model.eval()
        out = {}
        return model(jnp.ones((2, 8, 8, 1)), out=out), out

    features, out = jax.eval_shape(run)
    assert features.shape == out["head"].shape[:1] + out["head"].shape[-1:]
    assert "logits" not in out


@pytest.mark.parametrize(("size", "channels"), [((9, 13), 1), ((32, 32), 4)])
def test_any_size_and_channels(size, channels):
    model = abstract(variant="digits", in_channels=channels)
    model.eval()
    graphdef, state = nnx.split(model)
    x = jax.ShapeDtypeStruct((2, *size, channels), jnp.float32)
    logits = jax.eval_shape(lambda s, x: nnx.merge(graphdef, s, copy=True)(x), state, x)
    assert logits.shape == (2, 10)


def test_dropout_needs_rngs_in_train_mode(small):
    model = nnx.clone(small)
    model.train()
    x = jnp.ones((2, 8, 8, 1))
    with pytest.raises(ValueError, match="in train mode needs a key"):
        model(x)
    a, b, c = (np.asarray(nnx.clone(model)(x, rngs=nnx.Rngs(dropout=k))) for k in (0, 0, 1))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    model.eval()
    model(x)


def test_weights_have_torchvisions_scales():
    """kaiming_normal_(fan_out) ignores groups: a 3x3 depthwise kernel has std sqrt(2 / (9 c))."""
    model = el.models.create("mobilenet_v2", variant="digits", width=4.0, rngs=nnx.Rngs(0))
    depthwise = np.asarray(model.blocks[3].depthwise.conv.kernel[...])
    expected = math.sqrt(2 / (9 * depthwise.shape[-1]))
    assert depthwise.std() == pytest.approx(expected, rel=0.05)
    assert depthwise.mean() == pytest.approx(0, abs=0.05 * expected)
    assert np.asarray(model.classifier.kernel[...]).std() == pytest.approx(0.01, rel=0.05)
    assert not np.asarray(model.classifier.bias[...]).any()
