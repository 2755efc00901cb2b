# SPDX-License-Identifier: Apache-2.0
"""MnasNet in torchvision (B1) and in timm (A1, B1, small)."""

from collections.abc import Iterator
from typing import Any

from efficient_layers.models.torch_names.mobile_net import conv_bn, timm_network, timm_places
from efficient_layers.models.torch_weights import Pair, TorchNames


def _torchvision(model: Any) -> Iterator[Pair]:
    """The first block, without expansion, lies flat between stem and stages: `layers.3` to `7`."""
    yield from conv_bn("stem", "layers.0", "layers.1")
    yield from conv_bn("blocks/0/depthwise", "layers.3", "layers.4")
    yield from conv_bn("blocks/0/project", "layers.6", "layers.7")
    index, stages = 1, model.config.stages[1:]
    for number, stage in enumerate(stages, start=8):
        for place in range(stage.repeats):
            ours, theirs = f"blocks/{index}", f"layers.{number}.{place}.layers"
            for part, conv in (("expand", 0), ("depthwise", 3), ("project", 6)):
                yield from conv_bn(f"{ours}/{part}", f"{theirs}.{conv}", f"{theirs}.{conv + 1}")
            index += 1
    last = 8 + len(stages)
    yield from conv_bn("head", f"layers.{last}", f"layers.{last + 1}")
    if model.classifier is not None:
        yield Pair("classifier", "classifier.1")


def _timm(model: Any) -> Iterator[Pair]:
    return timm_network(model, timm_places(stage.repeats for stage in model.config.stages))


TORCH = {"timm": TorchNames(_timm), "torchvision": TorchNames(_torchvision)}
