# SPDX-License-Identifier: Apache-2.0
"""MLP-Mixer in timm."""

from collections.abc import Iterator
from typing import Any

from efficient_layers.models.torch_weights import Pair, TorchNames


def _timm(model: Any) -> Iterator[Pair]:
    yield Pair("stem", "stem.proj")
    for index in range(model.config.depth):
        for ours, theirs in (("tokens", "1"), ("channels", "2")):
            a, b = f"blocks/{index}/{ours}", f"blocks.{index}"
            yield Pair(f"{a}_norm", f"{b}.norm{theirs}")
            yield Pair(f"{a}_expand", f"{b}.mlp_{ours}.fc1")
            yield Pair(f"{a}_project", f"{b}.mlp_{ours}.fc2")
    yield Pair("norm", "norm")
    if model.classifier is not None:
        yield Pair("classifier", "head")


TORCH = {"timm": TorchNames(_timm, head=r"head\..*")}
