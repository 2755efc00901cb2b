# SPDX-License-Identifier: Apache-2.0
"""EfficientNet in torchvision and in timm."""

from collections.abc import Iterator
from typing import Any

from efficient_layers.models.torch_names.mobile_net import (
    conv_bn,
    timm_network,
    timm_places,
    torchvision_block,
)
from efficient_layers.models.torch_weights import Pair, TorchNames


def _torchvision(model: Any) -> Iterator[Pair]:
    yield from conv_bn("stem", "features.0.0", "features.0.1")
    index = 0
    for stage, repeats in enumerate(model.config.repeats, start=1):
        for place in range(repeats):
            theirs = f"features.{stage}.{place}.block"
            yield from torchvision_block(model.blocks[index], f"blocks/{index}", theirs)
            index += 1
    last = f"features.{len(model.config.stages) + 1}"
    yield from conv_bn("head", f"{last}.0", f"{last}.1")
    if model.classifier is not None:
        yield Pair("classifier", "classifier.1")


def _timm(model: Any) -> Iterator[Pair]:
    return timm_network(model, timm_places(model.config.repeats))


TORCH = {"torchvision": TorchNames(_torchvision), "timm": TorchNames(_timm)}
