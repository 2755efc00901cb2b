# SPDX-License-Identifier: Apache-2.0
"""Smaller, faster, better deep-learning models in JAX and Flax NNX, proven by measurements.

>>> import efficient_layers as el
>>> from flax import nnx
>>> model = el.models.create("mobilenet_v2", num_classes=10, rngs=nnx.Rngs(0))

Axis letters, everywhere: b batch, h height, w width, c channels, n tokens, d features.
Rooms are imported on first use, so a script that only needs a layer does not pay for Orbax.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from efficient_layers import (
        compress,
        data,
        evidence,
        layers,
        learn,
        linen,
        measure,
        models,
        ops,
        report,
        train,
    )
    from efficient_layers.train import load

__version__ = "0.1.0"
__all__ = [
    "compress",
    "data",
    "evidence",
    "layers",
    "learn",
    "linen",
    "load",
    "measure",
    "models",
    "ops",
    "report",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "load":
        return importlib.import_module("efficient_layers.train").load
    if name in __all__:
        return importlib.import_module(f"efficient_layers.{name}")
    raise AttributeError(f"module 'efficient_layers' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
