# SPDX-License-Identifier: Apache-2.0
"""ViT: errors for images that do not fit, exchanged attention and norms, drop path."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import efficient_layers as el

TINY = {
    "features": 16,
    "depth": 2,
    "num_heads": 2,
    "image_size": 8,
    "patch_size": 4,
    "num_classes": 5,
}


def abstract(**fields):
    return nnx.eval_shape(lambda: el.models.create("vit", rngs=nnx.Rngs(0), **{**TINY, **fields}))


def logits_shape(model, shape=(2, 8, 8, 3)):
    model.eval()
    graphdef, state = nnx.split(model)
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jax.eval_shape(lambda s, x: nnx.merge(graphdef, s, copy=True)(x), state, x).shape


@pytest.mark.fast
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": 30}, "patch_size=4 divides. Got image_size=30: 32 is the nearest"),
        ({"image_size": 0}, "Got image_size=0"),
        ({"variant": "bse"}, "Did you mean 'base'"),
        ({"depth": 0}, "depth of at least 1"),
        ({"dropout_rate": 1.0}, "Got depth=2, num_classes=5, dropout_rate=1.0"),
        ({"num_heads": 3}, "divide in_features=16"),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        abstract(**fields)


@pytest.mark.fast
@pytest.mark.parametrize("shape", [(2, 12, 12, 3), (2, 8, 8, 1), (8, 8, 3)])
def test_images_of_another_shape(shape):
    with pytest.raises(ValueError, match=r"of shape \(batch, 8, 8, 3\).*image_size=\.\.\."):
        logits_shape(abstract(), shape)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("glob", "layer"),
    [
        ("blocks/*/attention", "LinearAttention"),
        ("blocks/1/attention", {"layer": "MultiQueryAttention"}),
        ("**/*norm", "RMSNorm"),
        ("blocks/*/expand", {"layer": "LowRankLinear", "rank": 4}),
    ],
)
def test_layers_are_exchangeable(glob, layer):
    model = abstract(swap={glob: layer})
    name = layer if isinstance(layer, str) else layer["layer"]
    attribute = glob.rsplit("/", 1)[-1].replace("*", "attention_")
    assert type(getattr(model.blocks[1], attribute)).__name__ == name
    assert logits_shape(model) == (2, 5)


@pytest.mark.slow
def test_swapped_model_computes():
    swap = {"blocks/*/attention": "LinearAttention", "**/*norm": "RMSNorm"}
    model = el.models.create("vit", rngs=nnx.Rngs(0), swap=swap, **TINY)
    logits = model(jnp.ones((1, 8, 8, 3)))
    assert bool(jnp.isfinite(logits).all())
    assert float(jnp.abs(logits).max()) > 0


@pytest.mark.fast
def test_drop_path_grows_and_needs_rngs():
    model = abstract(drop_path_rate=0.2, depth=3)
    assert [block.drop_path.rate for block in model.blocks] == pytest.approx([0, 0.1, 0.2])
    graphdef, state = nnx.split(model)
    with pytest.raises(ValueError, match="in train mode needs a key"):
        jax.eval_shape(lambda s: nnx.merge(graphdef, s, copy=True)(jnp.ones((1, 8, 8, 3))), state)


@pytest.mark.slow
def test_distilled_logits_are_the_mean():
    model = el.models.create("vit", rngs=nnx.Rngs(0), distilled=True, **TINY)
    model.eval()
    out = {}
    logits = model(jnp.ones((1, 8, 8, 3)), out=out)
    both = (out["class_logits"] + out["distillation_logits"]) / 2
    assert jnp.array_equal(logits, both)
    assert not jnp.array_equal(logits, out["class_logits"])
