# SPDX-License-Identifier: Apache-2.0
"""MobileNetV1 against timm on random weights."""

import pytest
from flax import nnx

import efficient_layers as el
from tests.models.published import check_weights, images, randomised, torch_model

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

SIZES = [(32, 32), (49, 33)]


@pytest.mark.parametrize(
    "name", ["mobilenetv1_100", pytest.param("mobilenetv1_100h", marks=pytest.mark.slow)]
)
def test_logits(name):
    theirs = randomised(torch_model("timm", name, num_classes=7))
    ours = el.models.create(name, num_classes=7, rngs=nnx.Rngs(0))
    check_weights(ours, theirs, [images(size) for size in SIZES])
