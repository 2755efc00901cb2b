# SPDX-License-Identifier: Apache-2.0
"""MobileNetV2 in torchvision and in timm."""

from collections.abc import Iterator
from typing import Any

from efficient_layers.models.torch_names.mobile_net import conv_bn, timm_network, timm_places
from efficient_layers.models.torch_weights import Pair, TorchNames


def _torchvision(model: Any) -> Iterator[Pair]:
    yield from conv_bn("stem", "features.0.0", "features.0.1")
    for index, block in enumerate(model.blocks):
        ours, theirs = f"blocks/{index}", f"features.{index + 1}.conv"
        step = 0
        for part in ("expand", "depthwise"):
            if getattr(block, part) is not None:
                yield from conv_bn(f"{ours}/{part}", f"{theirs}.{step}.0", f"{theirs}.{step}.1")
                step += 1
        yield from conv_bn(f"{ours}/project", f"{theirs}.{step}", f"{theirs}.{step + 1}")
    last = f"features.{len(model.blocks) + 1}"
    yield from conv_bn("head", f"{last}.0", f"{last}.1")
    if model.classifier is not None:
        yield Pair("classifier", "classifier.1")


def _timm(model: Any) -> Iterator[Pair]:
    return timm_network(model, timm_places(stage.repeats for stage in model.config.stages))


TORCH = {"torchvision": TorchNames(_torchvision), "timm": TorchNames(_timm)}
