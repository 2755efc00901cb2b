# SPDX-License-Identifier: Apache-2.0
"""Names, fields, errors, and that `create` is deterministic and equals building by hand."""

import json

import jax
import numpy as np
import pytest
from flax import nnx

import efficient_layers as el
from efficient_layers.models import registry

pytestmark = pytest.mark.fast

SMALL = {
    "mobilenet_v2": {"variant": "digits", "width": 0.35},
    "menghani_cnn": {"width": 0.05, "image_size": 8},
}


def leaves(model):
    return jax.tree.leaves(nnx.state(model))


def test_names_lists_families_and_aliases():
    assert {"mobilenet_v2", "menghani_cnn", "mobilenetv2_100"} <= set(el.models.names())


@pytest.mark.parametrize("name", SMALL)
def test_create_is_deterministic(name):
    first = el.models.create(name, rngs=nnx.Rngs(3), **SMALL[name])
    second = el.models.create(name, rngs=nnx.Rngs(3), **SMALL[name])
    other = el.models.create(name, rngs=nnx.Rngs(4), **SMALL[name])
    assert all(np.array_equal(a, b) for a, b in zip(leaves(first), leaves(second), strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(leaves(first), leaves(other), strict=True))


def test_create_takes_a_new_key_each_time():
    rngs = nnx.Rngs(0)
    first = el.models.create("menghani_cnn", rngs=rngs, **SMALL["menghani_cnn"])
    second = el.models.create("menghani_cnn", rngs=rngs, **SMALL["menghani_cnn"])
    assert not np.array_equal(first.dense.kernel[...], second.dense.kernel[...])


@pytest.mark.parametrize("name", SMALL)
def test_create_equals_the_constructor(name):
    """Up to the rounding of the compiler, whose options differ."""
    made = el.models.create(name, rngs=nnx.Rngs(5), **SMALL[name])
    family = registry.FAMILIES[name]
    config = family.config(**SMALL[name])
    build = jax.jit(lambda key: nnx.split(family.model(config, rngs=nnx.Rngs(params=key))))
    graphdef, state = build(nnx.Rngs(5).params())
    assert graphdef == nnx.split(made)[0]
    for a, b in zip(leaves(made), jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_no_two_layers_share_weights():
    model = el.models.create("mobilenet_v2", variant="digits", rngs=nnx.Rngs(0))
    a, b = (model.blocks[i].depthwise.conv.kernel[...] for i in (0, 1))
    assert a.shape != b.shape or not np.allclose(a, b)
    first = np.asarray(model.blocks[0].expand.conv.kernel[...]).ravel()
    flat = np.asarray(model.blocks[1].expand.conv.kernel[...]).ravel()[: first.size]
    assert abs(np.corrcoef(first, flat)[0, 1]) < 0.2


def test_abstract_create_makes_no_weights():
    model = nnx.eval_shape(lambda: el.models.create("mobilenet_v2", rngs=nnx.Rngs(0)))
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves(model))


def test_layers_hold_no_random_state():
    for name, fields in SMALL.items():
        model = el.models.create(name, rngs=nnx.Rngs(0), **fields)
        assert not jax.tree.leaves(nnx.state(model, nnx.RngState))


@pytest.mark.parametrize("name", [*SMALL, "mobilenetv2_140"])
def test_describe_round_trips_through_json(name):
    described = json.loads(json.dumps(el.models.describe(name, num_classes=7)))
    assert described["fields"]["num_classes"] == 7
    again = el.models.describe(described["name"], **described["fields"])
    assert again == described


def test_alias_sets_the_width():
    assert el.models.describe("mobilenetv2_140") == el.models.describe("mobilenet_v2", width=1.4)


def test_described_fields_are_resolved():
    fields = el.models.describe("mobilenet_v2", variant="digits")["fields"]
    assert (fields["num_classes"], fields["in_channels"], fields["stem_strides"]) == (10, 1, 1)


@pytest.mark.parametrize(
    ("name", "fields", "error", "message"),
    [
        ("mobilenet_v22", {}, ValueError, "Did you mean 'mobilenet_v2'"),
        ("zzz", {}, ValueError, "Known: .*menghani_cnn, .*mobilenet_v2"),
        ("mobilenet_v2", {"widht": 1.0}, TypeError, "Did you mean 'width'"),
        ("mobilenet_v2", {"width": "1"}, TypeError, "'width' .* expects float. Got '1' .str."),
        ("mobilenet_v2", {"num_classes": 2.5}, TypeError, "expects int"),
        ("mobilenet_v2", {"num_classes": True}, TypeError, "expects int"),
        ("mobilenet_v2", {"variant": "digit"}, ValueError, "Did you mean 'digits'"),
        ("mobilenet_v2", {"width": 0.0}, ValueError, "width > 0"),
        ("mobilenet_v2", {"num_classes": -1}, ValueError, "num_classes >= 0"),
        ("menghani_cnn", {"dropout_rate": 1.0}, ValueError, "dropout_rate < 1"),
        ("menghani_cnn", {"image_size": 4}, ValueError, "image_size >= 8"),
    ],
)
def test_bad_names_and_fields(name, fields, error, message):
    with pytest.raises(error, match=message):
        el.models.create(name, rngs=nnx.Rngs(0), **fields)
