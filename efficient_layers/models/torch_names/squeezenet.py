# SPDX-License-Identifier: Apache-2.0
"""SqueezeNet in torchvision: `features` numbers activations and pooling too."""

from collections.abc import Iterator
from typing import Any

from efficient_layers.models.torch_weights import Pair, TorchNames


def _torchvision(model: Any) -> Iterator[Pair]:
    yield Pair("stem", "features.0")
    step = 3  # convolution, activation, pooling
    for index, row in enumerate(model.config.blocks):
        for part in ("squeeze", "expand1x1", "expand3x3"):
            yield Pair(f"blocks/{index}/{part}", f"features.{step}.{part}")
        step += 2 if row.pooled else 1
    if model.classifier is not None:
        yield Pair("classifier", "classifier.1")


TORCH = {"torchvision": TorchNames(_torchvision)}
