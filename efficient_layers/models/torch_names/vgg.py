# SPDX-License-Identifier: Apache-2.0
"""VGG in torchvision and in timm, whose dense layers are convolutions."""

from collections.abc import Iterator
from typing import Any

from efficient_layers.models.torch_weights import (
    CONV,
    POINTWISE,
    Layout,
    Pair,
    TorchNames,
    flattened,
)


def _features(model: Any) -> Iterator[Pair]:
    index = step = 0
    for stage in model.config.stages:
        for _ in range(stage.repeats):
            yield Pair(f"blocks/{index}/conv", f"features.{step}")
            if model.blocks[index].bn is not None:
                yield Pair(f"blocks/{index}/bn", f"features.{step + 1}")
            step += 2 if model.blocks[index].bn is None else 3
            index += 1
        step += 1  # pooling


def _map_shape(model: Any) -> tuple[int, int, int]:
    size = model.config.pool_size
    return size, size, model.config.stages[-1].channels


def _torchvision(model: Any) -> Iterator[Pair]:
    yield from _features(model)
    yield Pair("dense1", "classifier.0", flattened(*_map_shape(model)))
    yield Pair("dense2", "classifier.3")
    if model.classifier is not None:
        yield Pair("classifier", "classifier.6")


def _timm(model: Any) -> Iterator[Pair]:
    shape = _map_shape(model)
    # (h w c, out) <-> (out, c, h, w)
    window = Layout(
        lambda w: CONV.to_torch(w.reshape(*shape, -1)),
        lambda w: CONV.from_torch(w).reshape(-1, w.shape[0]),
    )
    yield from _features(model)
    yield Pair("dense1", "pre_logits.fc1", window)
    yield Pair("dense2", "pre_logits.fc2", POINTWISE)
    if model.classifier is not None:
        yield Pair("classifier", "head.fc")


TORCH = {
    "torchvision": TorchNames(_torchvision, head=r"classifier\.6\..*"),
    "timm": TorchNames(_timm, head=r"head\..*"),
}
