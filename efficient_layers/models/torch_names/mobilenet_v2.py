# SPDX-License-Identifier: Apache-2.0
"""MobileNetV2 in torchvision and in timm."""

from collections.abc import Iterator
from typing import Any

from efficient_layers.models.torch_weights import Pair, TorchNames


def _torchvision(model: Any) -> Iterator[Pair]:
    yield from _conv_bn("stem", "features.0", "0", "1")
    for index, block in enumerate(model.blocks):
        ours, theirs = f"blocks/{index}", f"features.{index + 1}.conv"
        step = 0
        for part in ("expand", "depthwise"):
            if getattr(block, part) is not None:
                yield from _conv_bn(f"{ours}/{part}", f"{theirs}.{step}", "0", "1")
                step += 1
        yield from _conv_bn(f"{ours}/project", theirs, f"{step}", f"{step + 1}")
    yield from _conv_bn("head", f"features.{len(model.blocks) + 1}", "0", "1")
    if model.classifier is not None:
        yield Pair("classifier", "classifier.1")


def _timm(model: Any) -> Iterator[Pair]:
    yield Pair("stem/conv", "conv_stem")
    yield Pair("stem/bn", "bn1")
    repeats = (range(stage.repeats) for stage in model.config.stages)
    places = [f"blocks.{stage}.{index}" for stage, r in enumerate(repeats) for index in r]
    for index, (block, theirs) in enumerate(zip(model.blocks, places, strict=True)):
        names = ["conv_pw", "conv_dw", "conv_pwl"] if block.expand else ["conv_dw", "conv_pw"]
        parts = ["expand", "depthwise", "project"][-len(names) :]
        for number, (part, name) in enumerate(zip(parts, names, strict=True), start=1):
            yield Pair(f"blocks/{index}/{part}/conv", f"{theirs}.{name}")
            yield Pair(f"blocks/{index}/{part}/bn", f"{theirs}.bn{number}")
    yield Pair("head/conv", "conv_head")
    yield Pair("head/bn", "bn2")
    if model.classifier is not None:
        yield Pair("classifier", "classifier")


def _conv_bn(ours: str, theirs: str, conv: str, bn: str) -> Iterator[Pair]:
    yield Pair(f"{ours}/conv", f"{theirs}.{conv}")
    yield Pair(f"{ours}/bn", f"{theirs}.{bn}")


TORCH = {"torchvision": TorchNames(_torchvision), "timm": TorchNames(_timm)}
