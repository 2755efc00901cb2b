# SPDX-License-Identifier: Apache-2.0
"""Inverted residuals in timm and in torchvision: MobileNetV2, V3, MnasNet, EfficientNet."""

from collections.abc import Iterable, Iterator
from typing import Any

from efficient_layers.models.torch_weights import Pair


def conv_bn(ours: str, conv: str, bn: str) -> Iterator[Pair]:
    """A `ConvBNAct` of ours and two modules of theirs."""
    yield Pair(f"{ours}/conv", conv)
    yield Pair(f"{ours}/bn", bn)


def timm_places(repeats: Iterable[int]) -> list[str]:
    """timm's prefix of every block, in order: "blocks.STAGE.INDEX"."""
    return [f"blocks.{stage}.{index}" for stage, r in enumerate(repeats) for index in range(r)]


def timm_block(block: Any, ours: str, theirs: str) -> Iterator[Pair]:
    """timm has two classes: one with `conv_pw` first, one without, where `conv_pw` comes last."""
    names = ["conv_pw", "conv_dw", "conv_pwl"] if block.expand else ["conv_dw", "conv_pw"]
    parts = ["expand", "depthwise", "project"][-len(names) :]
    for number, (part, name) in enumerate(zip(parts, names, strict=True), start=1):
        yield from conv_bn(f"{ours}/{part}", f"{theirs}.{name}", f"{theirs}.bn{number}")
    if block.se is not None:
        yield Pair(f"{ours}/se/reduce", f"{theirs}.se.conv_reduce")
        yield Pair(f"{ours}/se/expand", f"{theirs}.se.conv_expand")


def timm_network(model: Any, places: Iterable[str]) -> Iterator[Pair]:
    """timm's EfficientNet, which is also its MobileNetV2 and MnasNet."""
    yield from conv_bn("stem", "conv_stem", "bn1")
    for index, (block, place) in enumerate(zip(model.blocks, places, strict=True)):
        yield from timm_block(block, f"blocks/{index}", place)
    if model.head is not None:
        yield from conv_bn("head", "conv_head", "bn2")
    if model.classifier is not None:
        yield Pair("classifier", "classifier")


def torchvision_block(block: Any, ours: str, theirs: str) -> Iterator[Pair]:
    """torchvision's MobileNetV3 and EfficientNet: the parts that are there, numbered."""
    present = [name for name in block.parts if getattr(block, name) is not None]
    for number, part in enumerate(present):
        place = f"{theirs}.{number}"
        if part == "se":
            yield Pair(f"{ours}/se/reduce", f"{place}.fc1")
            yield Pair(f"{ours}/se/expand", f"{place}.fc2")
        else:
            yield from conv_bn(f"{ours}/{part}", f"{place}.0", f"{place}.1")
