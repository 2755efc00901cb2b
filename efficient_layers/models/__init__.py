# SPDX-License-Identifier: Apache-2.0
"""Model families, each a frozen config and a module, and the registry that creates them."""

from efficient_layers.models.menghani_cnn import MenghaniCNN, MenghaniCNNConfig
from efficient_layers.models.mobilenet_v2 import MobileNetV2, MobileNetV2Config
from efficient_layers.models.registry import create, describe, export_torch, load_torch, names
from efficient_layers.models.torch_weights import WeightsError

__all__ = [
    "MenghaniCNN",
    "MenghaniCNNConfig",
    "MobileNetV2",
    "MobileNetV2Config",
    "WeightsError",
    "create",
    "describe",
    "export_torch",
    "load_torch",
    "names",
]
