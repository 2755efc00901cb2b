# SPDX-License-Identifier: Apache-2.0
"""ShuffleNetV2 in torchvision: two branches, numbered steps (activations count)."""

from collections.abc import Iterator
from typing import Any

from efficient_layers.models.torch_names.mobile_net import conv_bn
from efficient_layers.models.torch_weights import Pair, TorchNames

# Part of ours -> branch of theirs, step of its convolution (batch normalisation comes next).
_STEPS = {
    "shortcut_depthwise": ("branch1", 0),
    "shortcut_project": ("branch1", 2),
    "expand": ("branch2", 0),
    "depthwise": ("branch2", 3),
    "project": ("branch2", 5),
}


def _torchvision(model: Any) -> Iterator[Pair]:
    yield from conv_bn("stem", "conv1.0", "conv1.1")
    repeats = [stage.repeats for stage in model.config.stages]
    places = [f"stage{s}.{i}" for s, count in enumerate(repeats, start=2) for i in range(count)]
    for index, (block, place) in enumerate(zip(model.blocks, places, strict=True)):
        for part, (branch, step) in _STEPS.items():
            if getattr(block, part) is not None:
                theirs = f"{place}.{branch}"
                yield from conv_bn(
                    f"blocks/{index}/{part}", f"{theirs}.{step}", f"{theirs}.{step + 1}"
                )
    yield from conv_bn("head", "conv5.0", "conv5.1")
    if model.classifier is not None:
        yield Pair("classifier", "fc")


TORCH = {"torchvision": TorchNames(_torchvision)}
