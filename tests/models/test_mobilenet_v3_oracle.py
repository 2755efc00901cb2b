# SPDX-License-Identifier: Apache-2.0
"""MobileNetV3 against torchvision and timm on random weights."""

import pytest
from flax import nnx

import efficient_layers as el
from tests.models.published import check_weights, images, load, randomised, torch_model

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

CLASSES = 7
SIZES = [(32, 32), (49, 33)]

# The first rows of the large table and one of the last: with and without expansion and excitation.
BLOCKS = [
    [3, 16, 16, False, "relu", 1],
    [3, 64, 24, False, "relu", 2],
    [5, 72, 40, True, "relu", 2],
    [5, 120, 40, True, "hard_swish", 1],
]


def test_rows_of_torchvisions_large():
    load("torchvision")
    from torchvision.models import mobilenetv3

    rows, c = [], 16
    for kernel_size, hidden, channels, se, act, strides in BLOCKS:
        name = {"relu": "RE", "hard_swish": "HS"}[act]
        rows.append(
            mobilenetv3.InvertedResidualConfig(
                c, kernel_size, hidden, channels, se, name, strides, 1, 1.0
            )
        )
        c = channels
    theirs = randomised(mobilenetv3.MobileNetV3(rows, 64, num_classes=CLASSES))
    fields = {"blocks": BLOCKS, "last_features": 240, "head_features": 64, "num_classes": CLASSES}
    ours = el.models.create("mobilenet_v3_large", rngs=nnx.Rngs(0), **fields)
    check_weights(ours, theirs, [images(size) for size in SIZES])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("mobilenetv3_small_050"),
        pytest.param("tf_mobilenetv3_small_minimal_100", marks=pytest.mark.slow),
        pytest.param("tf_mobilenetv3_large_075", marks=pytest.mark.slow),
    ],
)
def test_timm(name):
    theirs = randomised(torch_model("timm", name, num_classes=CLASSES))
    ours = el.models.create(name, num_classes=CLASSES, rngs=nnx.Rngs(0))
    check_weights(ours, theirs, [images(size) for size in SIZES], source="timm")
