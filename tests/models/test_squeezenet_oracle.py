# SPDX-License-Identifier: Apache-2.0
"""SqueezeNet against torchvision on random weights."""

import pytest
from flax import nnx

import efficient_layers as el
from tests.models.published import check_weights, images, randomised, torch_model

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.mark.parametrize("name", ["squeezenet1_0", "squeezenet1_1"])
def test_torchvision(name):
    """Sizes at which a last pooling window lies in the image only in part."""
    theirs = randomised(torch_model("torchvision", name, num_classes=7))
    ours = el.models.create(name, num_classes=7, rngs=nnx.Rngs(0))
    check_weights(ours, theirs, [images((48, 48)), images((61, 33))])
