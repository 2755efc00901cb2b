# SPDX-License-Identifier: Apache-2.0
"""MnasNet against torchvision and timm on random weights."""

import pytest
from flax import nnx

import efficient_layers as el
from tests.models.published import check_weights, images, randomised, torch_model

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

SIZES = [(32, 32), (49, 33)]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        pytest.param("torchvision", "mnasnet0_5", marks=pytest.mark.slow),
        pytest.param("timm", "mnasnet_small"),
        pytest.param("timm", "semnasnet_050", marks=pytest.mark.slow),
        pytest.param("timm", "mnasnet_050", marks=pytest.mark.slow),
    ],
)
def test_logits(source, name):
    theirs = randomised(torch_model(source, name, num_classes=7))
    ours = el.models.create(name, num_classes=7, rngs=nnx.Rngs(0))
    check_weights(ours, theirs, [images(size) for size in SIZES], source=source)
