# SPDX-License-Identifier: Apache-2.0
"""RepVGG in timm, with its branches or re-parameterised."""

from collections.abc import Iterator
from typing import Any

from efficient_layers.models.torch_names.mobile_net import conv_bn
from efficient_layers.models.torch_weights import Pair, TorchNames


def _timm(model: Any) -> Iterator[Pair]:
    yield from _block(model.stem, "stem", "stem")
    repeats = [stage.repeats for stage in model.config.stages]
    places = [f"stages.{s}.{i}" for s, count in enumerate(repeats) for i in range(count)]
    for index, (block, place) in enumerate(zip(model.blocks, places, strict=True)):
        yield from _block(block, f"blocks/{index}", place)
    if model.classifier is not None:
        yield Pair("classifier", "head.fc")


def _block(block: Any, ours: str, theirs: str) -> Iterator[Pair]:
    if block.conv is not None:
        yield Pair(f"{ours}/conv", f"{theirs}.reparam_conv")
        return
    for branch in ("conv_kxk", "conv_1x1"):
        yield from conv_bn(f"{ours}/{branch}", f"{theirs}.{branch}.conv", f"{theirs}.{branch}.bn")
    if block.identity is not None:
        yield Pair(f"{ours}/identity", f"{theirs}.identity")


TORCH = {"timm": TorchNames(_timm)}
