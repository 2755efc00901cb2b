# SPDX-License-Identifier: Apache-2.0
"""MobileViT in timm."""

from collections.abc import Iterator
from typing import Any

from efficient_layers.models.torch_names.mobile_net import conv_bn
from efficient_layers.models.torch_names.vit import timm_blocks
from efficient_layers.models.torch_weights import Pair, TorchNames

_RESIDUAL = {"expand": "conv1_1x1", "depthwise": "conv2_kxk", "project": "conv3_1x1"}
_GLOBAL = {"local": "conv_kxk", "leave": "conv_proj", "fuse": "conv_fusion"}


def _timm(model: Any) -> Iterator[Pair]:
    yield from conv_bn("stem", "stem.conv", "stem.bn")
    index = 0
    for number, stage in enumerate(model.config.stages):
        for place in range(stage.repeats + bool(stage.depth)):
            ours, theirs = f"blocks/{index}", f"stages.{number}.{place}"
            is_global = place == stage.repeats
            for part, name in (_GLOBAL if is_global else _RESIDUAL).items():
                if getattr(model.blocks[index], part) is not None:
                    b = f"{theirs}.{name}"
                    yield from conv_bn(f"{ours}/{part}", f"{b}.conv", f"{b}.bn")
            if is_global:
                yield Pair(f"{ours}/enter", f"{theirs}.conv_1x1")
                a, b = f"{ours}/transformer", f"{theirs}.transformer"
                yield from timm_blocks(a, b, stage.depth)
                yield Pair(f"{ours}/norm", f"{theirs}.norm")
            index += 1
    yield from conv_bn("head", "final_conv.conv", "final_conv.bn")
    if model.classifier is not None:
        yield Pair("classifier", "head.fc")


TORCH = {"timm": TorchNames(_timm, head=r"head\.fc\..*")}
