# SPDX-License-Identifier: Apache-2.0
"""ResNet against torchvision and timm on random weights."""

import pytest
from flax import nnx

import efficient_layers as el
from tests.models.published import check_weights, images, load, randomised

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

CLASSES = 7
SIZES = [(32, 32), (49, 33)]


def ours(name, repeats):
    rows = zip((64, 128, 256, 512), repeats, (1, 2, 2, 2), strict=True)
    return el.models.create(name, rngs=nnx.Rngs(0), stages=list(rows), num_classes=CLASSES)


def test_torchvisions_basic_blocks():
    load("torchvision")
    from torchvision.models import resnet

    theirs = resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], num_classes=CLASSES)
    check_weights(ours("resnet18", (1, 1, 1, 1)), randomised(theirs), [images(s) for s in SIZES])


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("resnet50", {}),
        pytest.param("wide_resnet50_2", {"base_width": 128}, marks=pytest.mark.slow),
        pytest.param(
            "resnext50_32x4d", {"cardinality": 32, "base_width": 4}, marks=pytest.mark.slow
        ),
    ],
)
def test_timms_bottlenecks(name, fields):
    load("timm")
    from timm.models import resnet

    repeats = (1, 2, 1, 1)
    theirs = resnet.ResNet(resnet.Bottleneck, repeats, num_classes=CLASSES, **fields)
    check_weights(ours(name, repeats), randomised(theirs), [images(s) for s in SIZES])
