# SPDX-License-Identifier: Apache-2.0
"""EfficientNet against torchvision and timm on random weights."""

import pytest
from flax import nnx

import efficient_layers as el
from tests.models.published import check_weights, images, load, randomised, torch_model

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

CLASSES = 7
SIZES = [(32, 32), (49, 33)]
STAGES = [[3, 1, 16, 1, 1], [3, 6, 24, 2, 2], [5, 6, 40, 1, 2]]


def test_rows_of_torchvisions():
    load("torchvision")
    from torchvision.models import efficientnet

    rows, c = [], 32
    for kernel, ratio, channels, repeats, strides in STAGES:
        rows.append(efficientnet.MBConvConfig(ratio, kernel, strides, c, channels, repeats))
        c = channels
    theirs = randomised(efficientnet.EfficientNet(rows, 0.2, num_classes=CLASSES))
    fields = {"stages": STAGES, "head_features": 160, "num_classes": CLASSES}
    ours = el.models.create("efficientnet_b0", rngs=nnx.Rngs(0), **fields)
    check_weights(ours, theirs, [images(size) for size in SIZES])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("efficientnet_b1", marks=pytest.mark.slow),
        pytest.param("tf_efficientnet_b0", marks=pytest.mark.slow),
        pytest.param("tf_efficientnet_lite0"),
    ],
)
def test_timm(name):
    theirs = randomised(torch_model("timm", name, num_classes=CLASSES))
    ours = el.models.create(name, num_classes=CLASSES, rngs=nnx.Rngs(0))
    check_weights(ours, theirs, [images(size) for size in SIZES], source="timm")
