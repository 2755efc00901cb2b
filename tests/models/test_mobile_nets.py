# SPDX-License-Identifier: Apache-2.0
"""MobileNetV1, V3, MnasNet, EfficientNet: the papers' own counts, bad input, drop-path."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import efficient_layers as el

fast = pytest.mark.fast


def abstract(name, **fields):
    return nnx.eval_shape(lambda: el.models.create(name, rngs=nnx.Rngs(0), **fields))


def cost(name, size, **fields):
    x = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    return el.measure.cost(abstract(name, **fields), x)


def count(model, filter_):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, filter_)))


# MACs and parameters in millions: the paper's tables 4 to 7.
@fast
@pytest.mark.parametrize(
    ("fields", "size", "macs", "params"),
    [
        ({}, 224, "569", "4.2"),
        ({}, 128, "186", "4.2"),
        ({"width": 0.25}, 224, "41", "0.5"),
        ({"variant": "shallow"}, 224, "307", "2.9"),
    ],
)
def test_mobilenet_v1s_tables(fields, size, macs, params):
    found = cost("mobilenet_v1", size, **fields)
    assert f"{found.macs / 1e6:.0f}" == macs
    assert f"{found.params / 1e6:.1f}" == params


@fast
def test_full_convolutions_of_table_4():
    """4,866 million are printed; the table's network has 4,867.3."""
    found = cost("mobilenet_v1", 224, separable=False)
    assert round(found.macs / 1e6) == 4867
    assert f"{found.params / 1e6:.1f}" == "29.3"


@fast
@pytest.mark.parametrize("size", [32, 49])
def test_padding_changes_no_count(size):
    rows = {"stages": [[16, 1, 1], [32, 1, 2]], "num_classes": 10}
    ours, theirs = (cost("mobilenet_v1", size, padding=p, **rows) for p in ("torch", "SAME"))
    assert (ours.macs, ours.activations) == (theirs.macs, theirs.activations)


# TF-Slim's README: millions of parameters, two digits; its small network has the paper's head.
@fast
@pytest.mark.parametrize(
    ("fields", "params"),
    [
        ({"width": 0.75}, 4.0),
        ({"variant": "small", "head_features": 1280}, 2.9),
        ({"variant": "small", "head_features": 1280, "width": 0.75}, 2.4),
        ({"variant": "small_minimalistic", "head_features": 1024}, 2.0),
    ],
)
def test_slims_mobilenet_v3(fields, params):
    model = abstract("mobilenet_v3", **fields)
    assert abs(count(model, nnx.Param) / 1e6 - params) < 0.1


@fast
@pytest.mark.parametrize(
    ("name", "blocks"),
    [("efficientnet_b0", 16), ("efficientnet_b7", 55), ("efficientnet_lite4", 30)],
)
def test_depth_of_efficientnet(name, blocks):
    fields = el.models.describe(name)["fields"]
    config = el.models.EfficientNetConfig(**fields)
    assert sum(config.repeats) == blocks


@fast
def test_drop_path_grows_with_depth():
    model = abstract("efficientnet_b0")
    rates = [block.drop_path.rate for block in model.blocks if block.has_skip]
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(0.2 * 14 / 16)


@pytest.mark.slow
def test_drop_path_needs_rngs_and_skips():
    rows = {"stem_features": 8, "stages": [[3, 1, 8, 3, 1]], "num_classes": 3, "head_features": 8}
    model = el.models.create(
        "efficientnet_b0", rngs=nnx.Rngs(0), dropout_rate=0.0, drop_path_rate=0.9, **rows
    )
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 8, 8, 3)), jnp.float32)
    with pytest.raises(ValueError, match=r"DropPath with rate=0\.3"):
        model(x)
    first, second = (np.asarray(model(x, rngs=nnx.Rngs(dropout=k))) for k in (0, 1))
    assert not np.array_equal(first, second)


@fast
@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("mobilenet_v3", {"variant": "larg"}, "Did you mean 'large'"),
        ("mobilenet_v3", {"act": "swish"}, "has no act 'swish'"),
        ("mobilenet_v1", {"variant": "shalow"}, "Did you mean 'shallow'"),
        ("mnasnet", {"padding": "same"}, "has no padding 'same'"),
        ("mnasnet", {"width": 0.0}, r"width > 0.*Got width=0\.0"),
        ("efficientnet", {"variant": "b9"}, "has no variant 'b9'"),
        ("efficientnet", {"drop_path_rate": 1.0}, r"drop_path_rate=1\.0"),
    ],
)
def test_bad_fields(name, fields, message):
    with pytest.raises(ValueError, match=message):
        el.models.create(name, rngs=nnx.Rngs(0), **fields)


@fast
@pytest.mark.parametrize("shape", [(1, 8, 8, 4), (8, 8, 3)])
def test_images_of_another_shape(shape):
    model = abstract("mobilenet_v3", stem_features=8, blocks=[[3, 8, 8, False, "relu", 1]])
    with pytest.raises(ValueError, match=r"expects images of shape \(b, h, w, 3\)"):
        model(jnp.zeros(shape))
