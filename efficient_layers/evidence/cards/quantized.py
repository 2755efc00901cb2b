# SPDX-License-Identifier: Apache-2.0
"""Cards of the quantised and the clustered layers."""

from typing import Any

from flax import nnx

from efficient_layers import layers
from efficient_layers.evidence.cards.card import Card, Side


def _linear(label: str, layer: Any, **spec: Any) -> Side:
    settings = layers.QuantSpec(**spec)
    return Side(label, lambda rngs: layer(768, 3072, spec=settings, rngs=rngs))


def _conv(label: str, layer: Any, **spec: Any) -> Side:
    settings = layers.QuantSpec(**spec)
    return Side(label, lambda rngs: layer(64, 64, (3, 3), spec=settings, rngs=rngs))


def _embedding(label: str, **spec: Any) -> Side:
    settings = layers.QuantSpec(**spec)
    return Side(label, lambda rngs: layers.QuantEmbedding(30_000, 768, spec=settings, rngs=rngs))


def _clusters(layer: Any, bits: int, *sizes: Any, **settings: Any) -> Side:
    label = ", ".join([f"{bits} bits", *(f"{n} {name}" for name, n in settings.items())])
    return Side(label, lambda rngs: layer(*sizes, bits=bits, **settings, rngs=rngs))


_FLOAT = Side("nnx.Linear 768 -> 3072", lambda rngs: nnx.Linear(768, 3072, rngs=rngs))
_FAKE = _linear("QuantLinear, int8 weights", layers.QuantLinear)

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
    Card(
        name="quant_conv",
        layers=("IntConv", "QuantConv"),
        pays="int8 convolutions where the backend has them; a quarter of the bytes",
        x=(8, 28, 28, 64),
        baseline=Side("3x3 Conv 64 -> 64", lambda rngs: layers.Conv(64, 64, (3, 3), rngs=rngs)),
        sides=(
            _conv("IntConv, int8 dynamic", layers.IntConv, activations="dynamic"),
            _conv("IntConv, int8 weights only", layers.IntConv),
            _conv("IntConv, int4 weights only", layers.IntConv, bits=4),
            _conv("QuantConv, int8 dynamic", layers.QuantConv, activations="dynamic"),
        ),
    ),
    Card(
        name="quant_embedding",
        layers=("QuantEmbedding",),
        pays="training a table that will be stored as int8 or int4",
        x=(8, 256),
        baseline=Side(
            "Embedding 30,000 x 768", lambda rngs: layers.Embedding(30_000, 768, rngs=rngs)
        ),
        sides=(
            _embedding("int8"),
            _embedding("int4, learned steps", bits=4, method="lsq"),
        ),
        vocabulary=30_000,
    ),
    Card(
        name="lsq",
        layers=(),
        pays="training at 2 to 4 bits: the step is learned with the weights",
        x=(128, 768),
        baseline=_FLOAT,
        sides=(
            _linear("4 bits, weights", layers.QuantLinear, bits=4, method="lsq"),
            _linear(
                "4 bits, static int8 input",
                layers.QuantLinear,
                bits=4,
                method="lsq",
                activations="static",
            ),
            _linear("4 bits, affine", layers.QuantLinear, bits=4),
        ),
    ),
    Card(
        name="binary_ternary",
        layers=(),
        pays="1/32 or 1/16 of the bytes; no time without kernels for bits",
        x=(128, 768),
        baseline=_FLOAT,
        sides=(
            _linear("binary, stored", layers.IntLinear, bits=1, method="binary"),
            _linear("ternary, stored", layers.IntLinear, bits=2, method="ternary"),
            _linear("binary, training", layers.QuantLinear, bits=1, method="binary"),
            _linear("ternary, training", layers.QuantLinear, bits=2, method="ternary"),
        ),
    ),
    Card(
        name="quant_noise",
        layers=(),
        pays="training at few bits: most weights of a step get exact gradients",
        x=(128, 768),
        baseline=_FAKE,
        sides=(
            _linear("half of the weights", layers.QuantLinear, noise=0.5),
            _linear("a tenth, 4 bits", layers.QuantLinear, bits=4, noise=0.1),
        ),
    ),
    Card(
        name="clustered_linear",
        layers=("ClusteredLinear",),
        pays="2 to 8 bits a weight, centroids where the weights are, trained without float masters",
        x=(128, 768),
        baseline=_FLOAT,
        sides=(
            _clusters(layers.ClusteredLinear, 4, 768, 3072),
            _clusters(layers.ClusteredLinear, 4, 768, 3072, groups=48),
            _clusters(layers.ClusteredLinear, 5, 768, 3072),
            _clusters(layers.ClusteredLinear, 8, 768, 3072),
        ),
    ),
    Card(
        name="clustered_conv",
        layers=("ClusteredConv",),
        pays="a convolution's bytes at 2 to 8 bits a weight, about its time",
        x=(8, 28, 28, 64),
        baseline=Side("3x3 Conv 64 -> 64", lambda rngs: layers.Conv(64, 64, (3, 3), rngs=rngs)),
        sides=(
            _clusters(layers.ClusteredConv, 4, 64, 64, (3, 3)),
            _clusters(layers.ClusteredConv, 8, 64, 64, (3, 3)),
        ),
    ),
    Card(
        name="clustered_embedding",
        layers=("ClusteredEmbedding",),
        pays="a table at 2 to 8 bits an entry whose centroids still train",
        x=(8, 256),
        baseline=Side(
            "Embedding 30,000 x 768", lambda rngs: layers.Embedding(30_000, 768, rngs=rngs)
        ),
        sides=(
            _clusters(layers.ClusteredEmbedding, 4, 30_000, 768),
            _clusters(layers.ClusteredEmbedding, 8, 30_000, 768),
        ),
        vocabulary=30_000,
    ),
)
