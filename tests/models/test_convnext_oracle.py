# SPDX-License-Identifier: Apache-2.0
"""ConvNeXt against timm and torchvision: equal logits."""

import pytest
from flax import nnx

import efficient_layers as el
from tests.models.published import check_weights, images, load, randomised, torch_model

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

CLASSES = 7
DIMS, DEPTHS = (8, 16, 24, 32), (1, 1, 1, 2)


def ours(name):
    stages = tuple(zip(DIMS, DEPTHS, strict=True))
    return el.models.create(
        name, stages=stages, layer_scale=0.5, num_classes=CLASSES, rngs=nnx.Rngs(0)
    )


@pytest.mark.parametrize("name", ["convnext_atto_ols", "convnext_tiny"])
def test_logits_equal_timm(name):
    theirs = torch_model(
        "timm", name, dims=DIMS, depths=DEPTHS, ls_init_value=0.5, num_classes=CLASSES
    )
    inputs = [images((64, 64)), images((75, 49))]
    check_weights(ours(name), randomised(theirs), inputs, source="timm")


def test_logits_equal_torchvision():
    load("torch")
    load("torchvision")
    from torchvision.models import convnext

    rows = [
        convnext.CNBlockConfig(c, after, count)
        for c, after, count in zip(DIMS, (*DIMS[1:], None), DEPTHS, strict=True)
    ]
    theirs = convnext.ConvNeXt(rows, layer_scale=0.5, num_classes=CLASSES)
    inputs = [images((64, 64)), images((75, 49))]
    check_weights(ours("convnext_tiny"), randomised(theirs), inputs, source="torchvision")
