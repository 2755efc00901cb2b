# SPDX-License-Identifier: Apache-2.0
"""MLP-Mixer: errors for images and fields that do not fit, exchanged layers."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import efficient_layers as el

pytestmark = pytest.mark.fast

TINY = {"features": 16, "depth": 2, "image_size": 8, "patch_size": 4, "num_classes": 5}


def abstract(**fields):
    make = {**TINY, **fields}
    return nnx.eval_shape(lambda: el.models.create("mlp_mixer", rngs=nnx.Rngs(0), **make))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": 9}, "patch_size=4 divides. Got image_size=9: 8 is the nearest"),
        ({"patch_size": 0}, "patch_size of at least 1"),
        ({"variant": "bse"}, "Did you mean 'base'"),
        ({"token_ratio": 0.01}, r"hidden units \(0, 64\)"),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        abstract(**fields)


def test_images_of_another_size():
    with pytest.raises(ValueError, match=r"This MLPMixer expects .*\(batch, 8, 8, 3\)"):
        abstract()(jnp.ones((2, 12, 12, 3)))


def test_layers_are_exchangeable():
    swap = {"**/*norm": "RMSNorm", "blocks/*/tokens_expand": {"layer": "LowRankLinear", "rank": 2}}
    graphdef, state = nnx.split(abstract(swap=swap))
    x = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
    run = jax.eval_shape(lambda s, x: nnx.merge(graphdef, s, copy=True)(x), state, x)
    assert run.shape == (2, 5)
