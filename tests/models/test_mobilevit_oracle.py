# SPDX-License-Identifier: Apache-2.0
"""MobileViT against timm: equal logits, also where patches do not divide the feature map."""

import dataclasses

import pytest
from flax import nnx

import efficient_layers as el
from tests.models.published import check_weights, images, load, randomised

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

CLASSES = 7
# Stages of each variant: a short xxs, and xs without its last two.
STAGES = {"mobilevit_xxs": (0, 2, 4), "mobilevit_xs": (0, 1, 2)}


@pytest.mark.parametrize("name", STAGES)
def test_logits_equal_timm(name):
    load("timm")
    from timm.models import byobnet, mobilevit

    config = mobilevit.model_cfgs[name]
    kept = tuple(config.blocks[index] for index in STAGES[name])
    theirs = byobnet.ByobNet(dataclasses.replace(config, blocks=kept), num_classes=CLASSES)
    stages = el.models.describe(name)["fields"]["stages"]
    ours = el.models.create(
        name,
        stages=[stages[index] for index in STAGES[name]],
        num_classes=CLASSES,
        rngs=nnx.Rngs(0),
    )
    check_weights(ours, randomised(theirs), [images((32, 32)), images((40, 24))], source="timm")
