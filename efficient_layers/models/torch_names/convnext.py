# SPDX-License-Identifier: Apache-2.0
"""ConvNeXt in timm and in torchvision."""

from collections.abc import Iterator
from typing import Any

from efficient_layers.models.torch_weights import POINTWISE, Layout, Pair, TorchNames

# (c,) <-> (c, 1, 1)
PER_CHANNEL = Layout(lambda g: g[:, None, None], lambda g: g[:, 0, 0])


def _timm(model: Any) -> Iterator[Pair]:
    for index in range(len(model.stem)):
        yield Pair(f"stem/{index}", f"stem.{index}")
    yield Pair("stem_norm", f"stem.{len(model.stem)}")
    linear = POINTWISE if model.config.conv_mlp else None
    for ours, stage, index in _places(model):
        theirs = f"stages.{stage}.blocks.{index}"
        yield Pair(f"{ours}/gamma", f"{theirs}.gamma")
        yield Pair(f"{ours}/depthwise", f"{theirs}.conv_dw")
        yield Pair(f"{ours}/norm", f"{theirs}.norm")
        yield Pair(f"{ours}/expand", f"{theirs}.mlp.fc1", linear)
        yield Pair(f"{ours}/project", f"{theirs}.mlp.fc2", linear)
    for index in range(len(model.downsamples)):
        yield Pair(f"downsamples/{index}/norm", f"stages.{index + 1}.downsample.0")
        yield Pair(f"downsamples/{index}/conv", f"stages.{index + 1}.downsample.1")
    yield Pair("norm", "head.norm")
    if model.classifier is not None:
        yield Pair("classifier", "head.fc")


def _torchvision(model: Any) -> Iterator[Pair]:
    yield Pair("stem/0", "features.0.0")
    yield Pair("stem_norm", "features.0.1")
    for ours, stage, index in _places(model):
        theirs = f"features.{2 * stage + 1}.{index}"
        yield Pair(f"{ours}/gamma", f"{theirs}.layer_scale", PER_CHANNEL)
        yield Pair(f"{ours}/depthwise", f"{theirs}.block.0")
        yield Pair(f"{ours}/norm", f"{theirs}.block.2")
        yield Pair(f"{ours}/expand", f"{theirs}.block.3")
        yield Pair(f"{ours}/project", f"{theirs}.block.5")
    for index in range(len(model.downsamples)):
        yield Pair(f"downsamples/{index}/norm", f"features.{2 * index + 2}.0")
        yield Pair(f"downsamples/{index}/conv", f"features.{2 * index + 2}.1")
    yield Pair("norm", "classifier.0")
    if model.classifier is not None:
        yield Pair("classifier", "classifier.2")


def _places(model: Any) -> Iterator[tuple[str, int, int]]:
    """(our path, stage, index in it) of every block."""
    ours = 0
    for number, stage in enumerate(model.config.stages):
        for index in range(stage.repeats):
            yield f"blocks/{ours}", number, index
            ours += 1


TORCH = {
    "timm": TorchNames(_timm, head=r"head\.fc\..*"),
    "torchvision": TorchNames(_torchvision, head=r"classifier\.2\..*"),
}
