# SPDX-License-Identifier: Apache-2.0
"""The models of MNIST-1D as in their authors' `notebooks/models.py`."""

from collections.abc import Iterator
from typing import Any

from efficient_layers.models.torch_weights import Pair, TorchNames, flattened

_GRU = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


def _pairs(model: Any) -> Iterator[Pair]:
    config, layout = model.config, None
    for index in range(len(model.layers)):
        if config.variant == "gru":
            ending = "_reverse" if index else ""
            for name in _GRU:
                yield Pair(f"layers/{index}/{name}", f"gru.{name}{ending}")
        else:
            yield Pair(f"layers/{index}", f"{_kind(config.variant)}{index + 1}")
    if model.classifier is None:
        return
    if config.variant == "cnn":
        layout = flattened(config.flat_features // config.features, 1, config.features)
    yield Pair("classifier", "linear3" if config.variant == "mlp" else "linear", layout)


def _kind(variant: str) -> str:
    return "conv" if variant == "cnn" else "linear"


TORCH = {"mnist1d": TorchNames(_pairs, head=r"linear3?\..*")}
