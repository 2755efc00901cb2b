# SPDX-License-Identifier: Apache-2.0
"""GhostNet in timm."""

from collections.abc import Iterable, Iterator
from typing import Any

from efficient_layers.models.torch_names.mobile_net import conv_bn
from efficient_layers.models.torch_weights import POINTWISE, Pair, TorchNames


def _timm(model: Any) -> Iterator[Pair]:
    yield from conv_bn("stem", "conv_stem", "bn1")
    places = list(_places(row.strides for row in model.config.blocks))
    for index, (block, place) in enumerate(zip(model.blocks, places, strict=True)):
        yield from _block(block, f"blocks/{index}", place)
    end = int(places[-1].split(".")[1]) + 1
    yield from conv_bn("last", f"blocks.{end}.0.conv", f"blocks.{end}.0.bn1")
    yield Pair("head", "conv_head", POINTWISE)
    if model.classifier is not None:
        yield Pair("classifier", "classifier")


def _places(strides: Iterable[int]) -> Iterator[str]:
    """timm's stages: each row with strides is one alone, the rows between two of them another."""
    stage, index, previous = 0, -1, 1
    for stride in strides:
        begins = index >= 0 and (stride > 1 or previous > 1)
        stage, index = (stage + 1, 0) if begins else (stage, index + 1)
        previous = stride
        yield f"blocks.{stage}.{index}"


def _block(block: Any, ours: str, theirs: str) -> Iterator[Pair]:
    for part, name in (("expand", "ghost1"), ("contract", "ghost2")):
        for half, step in (("primary", "primary_conv"), ("cheap", "cheap_operation")):
            place = f"{theirs}.{name}.{step}"
            yield from conv_bn(f"{ours}/{part}/{half}", f"{place}.0", f"{place}.1")
    if block.depthwise is not None:
        yield from conv_bn(f"{ours}/depthwise", f"{theirs}.conv_dw", f"{theirs}.bn_dw")
    if block.se is not None:
        yield Pair(f"{ours}/se/reduce", f"{theirs}.se.conv_reduce")
        yield Pair(f"{ours}/se/expand", f"{theirs}.se.conv_expand")
    if block.shortcut_depthwise is not None:
        place = f"{theirs}.shortcut"
        yield from conv_bn(f"{ours}/shortcut_depthwise", f"{place}.0", f"{place}.1")
        yield from conv_bn(f"{ours}/shortcut_project", f"{place}.2", f"{place}.3")


TORCH = {"timm": TorchNames(_timm)}
