# SPDX-License-Identifier: Apache-2.0
"""MobileNetV1 in timm; torchvision has none."""

from collections.abc import Iterator
from typing import Any

from efficient_layers.models.torch_names.mobile_net import conv_bn, timm_places
from efficient_layers.models.torch_weights import Pair, TorchNames


def _timm(model: Any) -> Iterator[Pair]:
    yield from conv_bn("stem", "conv_stem", "bn1")
    for index, theirs in enumerate(timm_places(row.repeats for row in model.config.stages)):
        ours = f"blocks/{index}"
        yield Pair(f"{ours}/depthwise", f"{theirs}.conv_dw")
        yield Pair(f"{ours}/bn_between", f"{theirs}.bn1")
        yield Pair(f"{ours}/pointwise", f"{theirs}.conv_pw")
        yield Pair(f"{ours}/bn", f"{theirs}.bn2")
    if model.head is not None:
        yield from conv_bn("head", "conv_head", "bn2")
    if model.classifier is not None:
        yield Pair("classifier", "classifier")


TORCH = {"timm": TorchNames(_timm)}
