# SPDX-License-Identifier: Apache-2.0
"""MobileViT: errors, exchanged attention, the bilinear resizing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import efficient_layers as el
from efficient_layers.models.mobilevit import _resized

pytestmark = pytest.mark.fast

TINY = {
    "stages": ((2, 8, 1, 2), (2, 12, 1, 2, 16, 2)),
    "head_features": 16,
    "num_heads": 2,
    "num_classes": 5,
}


def abstract(**fields):
    make = {**TINY, **fields}
    return nnx.eval_shape(lambda: el.models.create("mobilevit", rngs=nnx.Rngs(0), **make))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"variant": "xx"}, "Did you mean 'xxs'"),
        ({"patch_size": 0}, "patch_size >= 1, .* Got patch_size=0"),
        ({"num_heads": 3}, "divide in_features=16"),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        abstract(**fields)


def test_images_of_other_channels():
    with pytest.raises(ValueError, match=r"\(b, h, w, 3\). Got \(2, 16, 16, 1\)"):
        abstract()(jnp.ones((2, 16, 16, 1)))


def test_attention_is_exchangeable():
    model = abstract(swap={"blocks/*/transformer/*/attention": "LinearAttention"})
    assert isinstance(model.blocks[2].transformer[1].attention, el.layers.LinearAttention)
    graphdef, state = nnx.split(model)
    x = jax.ShapeDtypeStruct((2, 16, 18, 3), jnp.float32)
    run = jax.eval_shape(lambda s, x: nnx.merge(graphdef, s, copy=True)(x), state, x)
    assert run.shape == (2, 5)


def test_resizing_by_hand():
    """Three pixels to four: sources at -0.125 (clamped), 0.625, 1.375, 2.125 (clamped)."""
    x = jnp.asarray([0.0, 1.0, 4.0]).reshape(1, 1, 3, 1)
    y = np.asarray(_resized(x, 1, 4)).ravel()
    np.testing.assert_allclose(y, [0, 0.625, 1 + 0.375 * 3, 4], rtol=1e-6)
