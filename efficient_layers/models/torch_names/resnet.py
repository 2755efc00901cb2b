# SPDX-License-Identifier: Apache-2.0
"""ResNet in torchvision and in timm, which spell it alike."""

from collections.abc import Iterator
from typing import Any

from efficient_layers.models.torch_weights import Pair, TorchNames


def _pairs(model: Any) -> Iterator[Pair]:
    yield Pair("stem/conv", "conv1")
    yield Pair("stem/bn", "bn1")
    repeats = [stage.repeats for stage in model.config.stages]
    places = [f"layer{s}.{i}" for s, count in enumerate(repeats, start=1) for i in range(count)]
    for index, (block, theirs) in enumerate(zip(model.blocks, places, strict=True)):
        ours = f"blocks/{index}"
        for number, name in enumerate(block.convs, start=1):
            yield Pair(f"{ours}/{name}/conv", f"{theirs}.conv{number}")
            yield Pair(f"{ours}/{name}/bn", f"{theirs}.bn{number}")
        if block.shortcut is not None:
            yield Pair(f"{ours}/shortcut/conv", f"{theirs}.downsample.0")
            yield Pair(f"{ours}/shortcut/bn", f"{theirs}.downsample.1")
    if model.classifier is not None:
        yield Pair("classifier", "fc")


TORCH = {"torchvision": TorchNames(_pairs), "timm": TorchNames(_pairs)}
