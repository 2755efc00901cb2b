# SPDX-License-Identifier: Apache-2.0
"""Cards of normalisation, activations, gates, stochastic depth and sharing."""

import jax
from flax import nnx

from efficient_layers import layers
from efficient_layers.evidence.cards.card import Card, Side


def _feed_forward(rngs: nnx.Rngs) -> nnx.Module:
    return layers.SwiGLU(256, 688, rngs=rngs)


def _stack(groups: int):
    def make(rngs: nnx.Rngs) -> nnx.Module:
        return layers.SharedStack(_feed_forward, 12, groups=groups, rngs=rngs)

    return make


def _mlp(rngs: nnx.Rngs) -> nnx.Module:
    wide, narrow = nnx.Linear(256, 1024, rngs=rngs), nnx.Linear(1024, 256, rngs=rngs)
    return nnx.Sequential(wide, jax.nn.gelu, narrow)


CARDS = (
    Card(
        name="batch_norm",
        layers=("BatchNorm", "Identity"),
        pays="training convolutional networks; free at inference",
        x=(8, 56, 56, 96),
        baseline=Side("nnx.BatchNorm 96", lambda rngs: nnx.BatchNorm(96, rngs=rngs)),
        sides=(Side("BatchNorm 96", lambda rngs: layers.BatchNorm(96, rngs=rngs)),),
    ),
    Card(
        name="norms",
        layers=("GroupNorm", "LayerNorm", "RMSNorm"),
        pays="small batches, sequences, shared layers: no batch statistics; RMSNorm is cheapest",
        x=(8, 56, 56, 96),
        baseline=Side("nnx.GroupNorm 96", lambda rngs: nnx.GroupNorm(96, rngs=rngs)),
        sides=(
            Side("GroupNorm, 32 groups", lambda rngs: layers.GroupNorm(96, rngs=rngs)),
            Side("LayerNorm", lambda rngs: layers.LayerNorm(96, rngs=rngs)),
            Side("RMSNorm", lambda rngs: layers.RMSNorm(96, rngs=rngs)),
        ),
    ),
    Card(
        name="standardized_conv",
        layers=("StandardizedConv",),
        pays="training without batch normalisation: with GroupNorm, or scaled and without any norm",
        x=(8, 28, 28, 64),
        baseline=Side("3x3 Conv 64 -> 64", lambda rngs: layers.Conv(64, 64, (3, 3), rngs=rngs)),
        sides=(
            Side(
                "standardised",
                lambda rngs: layers.StandardizedConv(64, 64, (3, 3), rngs=rngs),
            ),
            Side(
                "standardised, scaled",
                lambda rngs: layers.StandardizedConv(64, 64, (3, 3), scaled=True, rngs=rngs),
            ),
        ),
    ),
    Card(
        name="activations",
        layers=(),
        pays="silu and sigmoid without an exponential: integer inference, CPUs",
        x=(8, 56, 56, 96),
        baseline=Side("silu", lambda rngs: nnx.Sequential(jax.nn.silu)),
        sides=(
            Side("hard_swish", lambda rngs: nnx.Sequential(layers.hard_swish)),
            Side("hard_sigmoid", lambda rngs: nnx.Sequential(layers.hard_sigmoid)),
        ),
    ),
    Card(
        name="gated_linear_unit",
        layers=("GEGLU", "GatedLinearUnit", "SwiGLU"),
        pays="a better feed-forward layer at equal parameters; one wide product instead of two",
        x=(8, 64, 256),
        baseline=Side("Linear, gelu, Linear: hidden 1024", _mlp),
        sides=(
            Side("SwiGLU, hidden 688", _feed_forward),
            Side("GEGLU, hidden 688", lambda rngs: layers.GEGLU(256, 688, rngs=rngs)),
        ),
    ),
    Card(
        name="drop_path",
        layers=("DropPath",),
        pays="regularises deep residual networks at no cost in inference",
        x=(8, 28, 28, 64),
        baseline=Side("nnx.Dropout", lambda rngs: nnx.Dropout(0.1)),
        sides=(Side("DropPath", lambda rngs: layers.DropPath(0.1)),),
    ),
    Card(
        name="shared_stack",
        layers=("SharedStack",),
        pays="depth without parameters: memory, downloads and compile time of a few layers",
        x=(8, 64, 256),
        baseline=Side("12 layers of their own", _stack(12)),
        sides=(Side("3 groups of 4", _stack(3)), Side("one layer, 12 times", _stack(1))),
    ),
)
