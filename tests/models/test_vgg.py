# SPDX-License-Identifier: Apache-2.0
"""VGG: images that are too small."""

import jax.numpy as jnp
import pytest
from flax import nnx

import efficient_layers as el

pytestmark = pytest.mark.fast


def test_an_image_that_cannot_be_halved_five_times():
    fields = {"stages": [[4, 1]] * 5, "hidden_features": 8}
    model = nnx.eval_shape(lambda: el.models.create("vgg", rngs=nnx.Rngs(0), **fields))
    with pytest.raises(ValueError, match=r"at least 32x32. Got \(1, 31, 32, 3\). Resize"):
        model(jnp.ones((1, 31, 32, 3)))


def test_bad_fields():
    with pytest.raises(ValueError, match=r"vgg has no variant '12'. Known: 11, 13, 16, 19"):
        el.models.create("vgg", variant="12", rngs=nnx.Rngs(0))
