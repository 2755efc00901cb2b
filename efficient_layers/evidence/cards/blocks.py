# SPDX-License-Identifier: Apache-2.0
"""Cards of the blocks and of the low-rank convolutions: what each is measured against."""

from flax import nnx

from efficient_layers import layers
from efficient_layers.evidence.cards.card import Card, Side


def _conv(features: int):
    """A dense 3x3 of as many channels in and out."""
    return lambda rngs: layers.Conv(features, features, (3, 3), rngs=rngs)


def _plain_rep_vgg(rngs: nnx.Rngs) -> nnx.Module:
    return layers.RepVGGBlock(64, 64, rngs=rngs).reparameterise()


CARDS = (
    Card(
        name="shuffle_unit",
        layers=("ShuffleUnit",),
        pays="mobile networks bound by memory traffic: half of the channels pass untouched",
        x=(8, 28, 28, 116),
        baseline=Side(
            "InvertedResidual 116 -> 116, expansion 1",
            lambda rngs: layers.InvertedResidual(116, 116, expand_ratio=1, rngs=rngs),
        ),
        sides=(
            Side("ShuffleUnit 116 -> 116", lambda rngs: layers.ShuffleUnit(116, 116, rngs=rngs)),
        ),
    ),
    Card(
        name="ghost",
        layers=("GhostModule", "GhostBottleneck"),
        pays="1x1 convolutions of many channels: half of their parameters and MACs",
        x=(8, 14, 14, 112),
        baseline=Side(
            "ConvBNAct 1x1, 112 -> 480", lambda rngs: layers.ConvBNAct(112, 480, 1, rngs=rngs)
        ),
        sides=(
            Side("GhostModule 112 -> 480", lambda rngs: layers.GhostModule(112, 480, rngs=rngs)),
            Side("ratio 4", lambda rngs: layers.GhostModule(112, 480, ratio=4, rngs=rngs)),
        ),
    ),
    Card(
        name="fire",
        layers=("Fire",),
        pays="few parameters: a twelfth of a dense 3x3 of as many channels",
        x=(8, 27, 27, 128),
        baseline=Side("Conv 3x3, 128 -> 128", _conv(128)),
        sides=(
            Side("Fire 128, 16, 64 + 64", lambda rngs: layers.Fire(128, 16, 64, 64, rngs=rngs)),
        ),
    ),
    Card(
        name="rep_vgg",
        layers=("RepVGGBlock",),
        pays="inference: three branches' accuracy for one convolution's time",
        x=(8, 28, 28, 64),
        baseline=Side(
            "RepVGGBlock 64 -> 64, three branches",
            lambda rngs: layers.RepVGGBlock(64, 64, rngs=rngs),
        ),
        sides=(Side("re-parameterised", _plain_rep_vgg),),
    ),
    Card(
        name="conv_next_block",
        layers=("ConvNeXtBlock",),
        pays="accuracy from 1 G MACs on, without BatchNorm's batch dependence",
        x=(2, 28, 28, 192),
        baseline=Side("Conv 3x3, 192 -> 192", _conv(192)),
        sides=(Side("ConvNeXtBlock 192", lambda rngs: layers.ConvNeXtBlock(192, rngs=rngs)),),
    ),
    Card(
        name="low_rank_conv",
        layers=("SpatialSeparableConv", "TuckerConv", "CPConv", "FactorizedConv"),
        pays="trained convolutions whose kernels have small tails: 2 to 5 times fewer MACs",
        x=(8, 28, 28, 128),
        baseline=Side("Conv 3x3, 128 -> 128", _conv(128)),
        sides=(
            Side(
                "spatial, rank 64",
                lambda rngs: layers.SpatialSeparableConv(128, 128, 3, rank=64, rngs=rngs),
            ),
            Side(
                "Tucker-2, ranks (64, 64)",
                lambda rngs: layers.TuckerConv(128, 128, 3, ranks=(64, 64), rngs=rngs),
            ),
            Side("CP, rank 128", lambda rngs: layers.CPConv(128, 128, 3, rank=128, rngs=rngs)),
        ),
    ),
)
