# SPDX-License-Identifier: Apache-2.0
"""Cards of the quantised layers."""

from typing import Any

from flax import nnx

from efficient_layers import layers
from efficient_layers.evidence.cards.card import Card, Side


def _linear(label: str, layer: Any, **spec: Any) -> Side:
    settings = layers.QuantSpec(**spec)
    return Side(label, lambda rngs: layer(768, 3072, spec=settings, rngs=rngs))


_FLOAT = Side("nnx.Linear 768 -> 3072", lambda rngs: nnx.Linear(768, 3072, rngs=rngs))

CARDS = (
    Card(
        name="quant_linear",
        layers=("IntLinear", "QuantLinear"),
        pays="a quarter or an eighth of the bytes; int8 products where the backend has them",
        x=(128, 768),
        baseline=_FLOAT,
        sides=(
            _linear("IntLinear, int8 dynamic", layers.IntLinear, activations="dynamic"),
            _linear("IntLinear, int8 weights only", layers.IntLinear),
            _linear(
                "IntLinear, int4 weights only, groups of 128",
                layers.IntLinear,
                bits=4,
                granularity="group",
                group_size=128,
            ),
            _linear("QuantLinear, int8 dynamic", layers.QuantLinear, activations="dynamic"),
        ),
    ),
)
