# SPDX-License-Identifier: Apache-2.0
"""MobileNetV3 in torchvision and in timm."""

import itertools
from collections.abc import Iterator
from typing import Any

from efficient_layers.models.torch_names.mobile_net import (
    conv_bn,
    timm_block,
    timm_places,
    torchvision_block,
)
from efficient_layers.models.torch_weights import POINTWISE, Pair, TorchNames


def _torchvision(model: Any) -> Iterator[Pair]:
    yield from conv_bn("stem", "features.0.0", "features.0.1")
    for index, block in enumerate(model.blocks):
        yield from torchvision_block(block, f"blocks/{index}", f"features.{index + 1}.block")
    last = f"features.{len(model.blocks) + 1}"
    yield from conv_bn("last", f"{last}.0", f"{last}.1")
    yield Pair("head", "classifier.0")
    if model.classifier is not None:
        yield Pair("classifier", "classifier.3")


def _timm(model: Any) -> Iterator[Pair]:
    """A stage of timm's is a run of rows with equal channels; `head` is a 1x1 convolution there."""
    yield from conv_bn("stem", "conv_stem", "bn1")
    runs = [len(list(run)) for _, run in itertools.groupby(r.channels for r in model.config.blocks)]
    for index, (block, place) in enumerate(zip(model.blocks, timm_places(runs), strict=True)):
        yield from timm_block(block, f"blocks/{index}", place)
    last = f"blocks.{len(runs)}.0"
    yield from conv_bn("last", f"{last}.conv", f"{last}.bn1")
    yield Pair("head", "conv_head", POINTWISE)
    if model.classifier is not None:
        yield Pair("classifier", "classifier")


TORCH = {
    "torchvision": TorchNames(_torchvision, head=r"classifier\.3\..*"),
    "timm": TorchNames(_timm),
}
