# SPDX-License-Identifier: Apache-2.0
"""The survey's plain CNN as an `nn.Sequential` (`evidence/torch_side.py`)."""

from collections.abc import Iterator
from typing import Any

from efficient_layers.models.torch_weights import Pair, TorchNames, flattened


def _sequential(model: Any) -> Iterator[Pair]:
    """Twice convolution, ReLU, norm, then pooling: 7 modules a stage; then flatten, dense, ReLU."""
    for index in range(len(model.convs)):
        place = 7 * (index // 2) + 3 * (index % 2)
        yield Pair(f"convs/{index}/conv", f"{place}")
        yield Pair(f"convs/{index}/bn", f"{place + 2}")
    size, channels = model.image_size // 8, model.convs[-1].conv.out_features
    dense = 7 * len(model.convs) // 2 + 1
    yield Pair("dense", f"{dense}", flattened(size, size, channels))
    if model.classifier is not None:
        yield Pair("classifier", f"{dense + 2}")


TORCH = {"torch": TorchNames(_sequential, head=r"24\..*")}
