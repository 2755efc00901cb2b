# SPDX-License-Identifier: Apache-2.0
"""ShuffleNetV2 against torchvision on random weights."""

import pytest
from flax import nnx

import efficient_layers as el
from tests.models.published import check_weights, images, load, randomised

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

CLASSES = 7


@pytest.mark.parametrize(
    ("name", "channels", "head"),
    [
        ("shufflenet_v2_x0_5", (48, 96, 192), 1024),
        pytest.param("shufflenet_v2_x2_0", (244, 488, 976), 2048, marks=pytest.mark.slow),
    ],
)
def test_torchvision(name, channels, head):
    """The published widths, fewer units."""
    load("torchvision")
    from torchvision.models import ShuffleNetV2

    repeats = (2, 1, 2)
    theirs = ShuffleNetV2(list(repeats), [24, *channels, head], num_classes=CLASSES)
    stages = [[c, r, 2] for c, r in zip(channels, repeats, strict=True)]
    ours = el.models.create(name, rngs=nnx.Rngs(0), stages=stages, num_classes=CLASSES)
    check_weights(ours, randomised(theirs), [images((32, 32)), images((65, 49))])
