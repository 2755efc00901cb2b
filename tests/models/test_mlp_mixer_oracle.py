# SPDX-License-Identifier: Apache-2.0
"""MLP-Mixer against timm: equal logits."""

import pytest
from flax import nnx

import efficient_layers as el
from tests.models.published import check_weights, images, load, randomised

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

CLASSES = 7


@pytest.mark.parametrize("size", [64, 96])
@pytest.mark.parametrize("name", ["mixer_s32_224", "mixer_b16_224"])
def test_logits_equal_timm(name, size):
    load("timm")
    # timm's creators fix the depth and the width; its class does not.
    from timm.models.mlp_mixer import MlpMixer

    patch = 32 if "32" in name else 16
    theirs = MlpMixer(CLASSES, size, patch_size=patch, num_blocks=2, embed_dim=64)
    ours = el.models.create(
        name, depth=2, features=64, image_size=size, num_classes=CLASSES, rngs=nnx.Rngs(0)
    )
    check_weights(ours, randomised(theirs), [images((size, size))], source="timm")
