# SPDX-License-Identifier: Apache-2.0
"""GhostNet against timm on random weights."""

import pytest
from flax import nnx

import efficient_layers as el
from tests.models.published import check_weights, images, load, randomised, torch_model

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

CLASSES = 7
SIZES = [(32, 32), (49, 33)]


@pytest.mark.parametrize("width", [0.5, pytest.param(1.3, marks=pytest.mark.slow)])
def test_rows_of_timm(width):
    """The first stages of the table: with and without strides, excitation, a shortcut's layers."""
    load("timm")
    from timm.models import ghostnet

    stages = [
        [[3, 48, 24, 0, 2]],
        [[3, 72, 24, 0, 1]],
        [[5, 72, 40, 0.25, 2]],
        [[5, 120, 40, 0.25, 1], [3, 100, 48, 0, 1]],
    ]
    theirs = randomised(ghostnet.GhostNet(stages, num_classes=CLASSES, width=width))
    rows = [row for stage in stages for row in stage]
    ours = el.models.create(
        "ghostnet", rngs=nnx.Rngs(0), width=width, blocks=rows, num_classes=CLASSES
    )
    check_weights(ours, theirs, [images(size) for size in SIZES])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ghostnet_050", "ghostnet_100"])
def test_timm(name):
    theirs = randomised(torch_model("timm", name, num_classes=CLASSES))
    ours = el.models.create(name, num_classes=CLASSES, rngs=nnx.Rngs(0))
    check_weights(ours, theirs, [images(size) for size in SIZES])
