# SPDX-License-Identifier: Apache-2.0
"""ShuffleNetV2, SqueezeNet, GhostNet and RepVGG: errors for fields and images that do not fit."""

import jax.numpy as jnp
import pytest
from flax import nnx

import efficient_layers as el
from tests.models.case import all_cases

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("family", "fields", "message"),
    [
        ("shufflenet_v2", {"variant": "0.75"}, "no variant '0.75'. (Did|Known)"),
        ("shufflenet_v2", {"stages": [[7, 1, 2]]}, "even number of out_features"),
        ("squeezenet", {"variant": "1.2"}, "no variant '1.2'. (Did|Known)"),
        ("squeezenet", {"dropout_rate": 1.0}, "Got num_classes=1000, dropout_rate=1.0"),
        ("ghostnet", {"width": 0.0}, "width > 0.* Got width=0.0"),
        ("ghostnet", {"blocks": []}, "at least one row in blocks"),
        ("repvgg", {"act": "gelu"}, "no act 'gelu'. (Did|Known)"),
    ],
)
def test_fields(family, fields, message):
    with pytest.raises(ValueError, match=message):
        nnx.eval_shape(lambda: el.models.create(family, rngs=nnx.Rngs(0), **fields))


@pytest.mark.parametrize("family", ["shufflenet_v2", "squeezenet", "ghostnet", "repvgg"])
def test_images_of_other_channels(family):
    fields = next(case.fields for case in all_cases() if case.family == family)
    model = nnx.eval_shape(lambda: el.models.create(family, rngs=nnx.Rngs(0), **fields))
    with pytest.raises(ValueError, match=r"\(b, h, w, 3\). Got \(1, 32, 32, 1\)"):
        model(jnp.ones((1, 32, 32, 1)))
