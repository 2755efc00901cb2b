# SPDX-License-Identifier: Apache-2.0
"""ConvNeXt: errors for what does not fit, exchanged norms, drop path over the depth."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import efficient_layers as el

pytestmark = pytest.mark.fast

TINY = {"stages": ((8, 1), (12, 2)), "num_classes": 5}


def abstract(**fields):
    make = {**TINY, **fields}
    return nnx.eval_shape(lambda: el.models.create("convnext", rngs=nnx.Rngs(0), **make))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"variant": "smal"}, "Did you mean 'small'"),
        ({"stem": "patches"}, "Did you mean 'patch'"),
        ({"stages": ()}, "stages of at least 1"),
        ({"stages": ((8, 0),)}, r"Got num_classes=5, .* stages=\(Stage\(channels=8, repeats=0"),
        ({"kernel_size": 4}, "odd kernel_size"),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        abstract(**fields)


@pytest.mark.parametrize("shape", [(2, 7, 8, 3), (2, 8, 8, 1), (8, 8, 3)])
def test_images_that_do_not_fit(shape):
    with pytest.raises(ValueError, match=r"h and w at least 8. Got"):
        abstract()(jnp.ones(shape))


def test_norms_are_exchangeable():
    model = abstract(swap={"**/*norm": "RMSNorm"})
    assert isinstance(model.blocks[0].norm, el.layers.RMSNorm)
    graphdef, state = nnx.split(model)
    x = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
    run = jax.eval_shape(lambda s, x: nnx.merge(graphdef, s, copy=True)(x), state, x)
    assert run.shape == (2, 5)


def test_drop_path_grows():
    model = abstract(drop_path_rate=0.2)
    assert [block.drop_path.rate for block in model.blocks] == pytest.approx([0, 0.1, 0.2])
