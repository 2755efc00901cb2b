# SPDX-License-Identifier: Apache-2.0
"""Cards of convolutions that spend fewer numbers than a full one."""

import jax
from flax import nnx

from efficient_layers import layers
from efficient_layers.evidence.cards.card import Card, Side


def _conv(features: int, **kwargs):
    """A 3x3 convolution that keeps the channels."""

    def make(rngs: nnx.Rngs) -> nnx.Module:
        return layers.Conv(features, features, (3, 3), use_bias=False, rngs=rngs, **kwargs)

    return make


def _causal(**kwargs):
    def make(rngs: nnx.Rngs) -> nnx.Module:
        return layers.CausalConv(256, 256, 4, use_bias=False, rngs=rngs, **kwargs)

    return make


def _fold_orientations(x: jax.Array) -> jax.Array:
    """b h w r c -> b h w (r c): what an ordinary convolution takes."""
    return x.reshape(*x.shape[:-2], -1)


CARDS = (
    Card(
        name="conv",
        layers=("Conv",),
        pays="every convolution of a Flax model: the same layer, in the form its device runs fast",
        x=(8, 56, 56, 64),
        baseline=Side(
            "nnx.Conv, 3x3, 64 -> 64",
            lambda rngs: nnx.Conv(64, 64, (3, 3), use_bias=False, rngs=rngs),
        ),
        sides=(Side("Conv, 3x3, 64 -> 64", _conv(64)),),
    ),
    Card(
        name="depthwise_conv",
        layers=("DepthwiseConv",),
        pays="mixes positions at 1 / channels of a convolution's cost; 1x1s around it mix channels",
        x=(4, 56, 56, 96),
        baseline=Side("3x3 Conv 96 -> 96", _conv(96)),
        sides=(
            Side(
                "depthwise 3x3",
                lambda rngs: layers.DepthwiseConv(96, use_bias=False, rngs=rngs),
            ),
            Side(
                "depthwise 5x5",
                lambda rngs: layers.DepthwiseConv(96, 5, use_bias=False, rngs=rngs),
            ),
        ),
    ),
    Card(
        name="grouped_conv",
        layers=("Conv",),
        pays="1 / groups of the weights and MACs, where groups need not talk in this layer",
        x=(4, 28, 28, 256),
        baseline=Side("3x3 Conv 256 -> 256", _conv(256)),
        sides=(
            Side("8 groups", _conv(256, feature_group_count=8)),
            Side("32 groups", _conv(256, feature_group_count=32)),
        ),
    ),
    Card(
        name="dilated_conv",
        layers=("Conv",),
        pays="a wide view without stride or larger kernel: segmentation, audio",
        x=(4, 28, 28, 64),
        baseline=Side(
            "5x5 Conv 64 -> 64",
            lambda rngs: layers.Conv(64, 64, (5, 5), use_bias=False, rngs=rngs),
        ),
        sides=(Side("3x3, dilation 2 (sees 5x5)", _conv(64, kernel_dilation=2)),),
    ),
    Card(
        name="separable_conv",
        layers=("SeparableConv",),
        pays="a full convolution's job at 1 / out + 1 / k^2 of its weights and MACs",
        x=(4, 28, 28, 192),
        baseline=Side(
            "3x3 ConvBNAct 192 -> 192", lambda rngs: layers.ConvBNAct(192, 192, rngs=rngs)
        ),
        sides=(
            Side("Xception's order", lambda rngs: layers.SeparableConv(192, 192, rngs=rngs)),
            Side(
                "MobileNetV1's order",
                lambda rngs: layers.SeparableConv(
                    192, 192, between=True, act=jax.nn.relu, rngs=rngs
                ),
            ),
        ),
    ),
    Card(
        name="squeeze_excite",
        layers=("SqueezeExcite",),
        pays="accuracy for hardly any MACs (the image's mean gates its channels); costs bandwidth",
        x=(4, 28, 28, 96),
        baseline=Side(
            "InvertedResidual 96 -> 96",
            lambda rngs: layers.InvertedResidual(96, 96, expand_ratio=4, rngs=rngs),
        ),
        sides=(
            Side(
                "with se_features=24",
                lambda rngs: layers.InvertedResidual(
                    96, 96, expand_ratio=4, se_features=24, rngs=rngs
                ),
            ),
        ),
    ),
    Card(
        name="inverted_residual",
        layers=("InvertedResidual", "ConvBNAct"),
        pays="mobile vision models: a wide nonlinear middle at a depthwise convolution's cost",
        x=(4, 28, 28, 64),
        baseline=Side(
            "3x3 ConvBNAct 64 -> 64, twice",
            lambda rngs: nnx.Sequential(
                layers.ConvBNAct(64, 64, rngs=rngs), layers.ConvBNAct(64, 64, rngs=rngs)
            ),
        ),
        sides=(
            Side("ratio 6", lambda rngs: layers.InvertedResidual(64, 64, rngs=rngs)),
            Side(
                "ratio 3",
                lambda rngs: layers.InvertedResidual(64, 64, expand_ratio=3, rngs=rngs),
            ),
        ),
    ),
    Card(
        name="fused_mb_conv",
        layers=("FusedMBConv",),
        pays="early stages on matrix units: one dense convolution for a wide 1x1 and a depthwise",
        x=(4, 56, 56, 24),
        baseline=Side(
            "InvertedResidual 24 -> 24",
            lambda rngs: layers.InvertedResidual(24, 24, expand_ratio=4, rngs=rngs),
        ),
        sides=(Side("FusedMBConv", lambda rngs: layers.FusedMBConv(24, 24, rngs=rngs)),),
    ),
    Card(
        name="blur_pool",
        layers=("BlurPool",),
        pays="predictions that do not flip when the image shifts by a pixel; no saving of time",
        x=(4, 56, 56, 96),
        baseline=Side(
            "3x3 depthwise, stride 2",
            lambda rngs: layers.DepthwiseConv(96, strides=2, use_bias=False, rngs=rngs),
        ),
        sides=(
            Side("Tri-3", lambda rngs: layers.BlurPool(3)),
            Side("Bin-5", lambda rngs: layers.BlurPool(5)),
        ),
    ),
    Card(
        name="causal_conv",
        layers=("CausalConv",),
        pays="sequences at linear cost, trained at all positions at once",
        x=(4, 512, 256),
        baseline=Side("CausalConv 256 -> 256, k = 4", _causal()),
        sides=(
            Side("8 groups", _causal(feature_group_count=8)),
            Side("depthwise", _causal(feature_group_count=256)),
        ),
    ),
    Card(
        name="crelu",
        layers=("CReLU",),
        pays="first layers: half of the convolution before it",
        x=(4, 56, 56, 64),
        baseline=Side(
            "3x3 ConvBNAct 64 -> 64",
            lambda rngs: layers.ConvBNAct(64, 64, act=jax.nn.relu, rngs=rngs),
        ),
        sides=(
            Side(
                "3x3 ConvBNAct 64 -> 32, CReLU",
                lambda rngs: nnx.Sequential(
                    layers.ConvBNAct(64, 32, act=None, rngs=rngs), layers.CReLU(32)
                ),
            ),
        ),
    ),
    Card(
        name="p4_conv",
        layers=("P4Conv",),
        pays="images without an upright direction: a quarter of the weights, exact under turns",
        x=(4, 28, 28, 4, 32),
        baseline=Side(
            "3x3 Conv 128 -> 128",
            lambda rngs: nnx.Sequential(
                _fold_orientations, layers.Conv(128, 128, (3, 3), rngs=rngs)
            ),
        ),
        sides=(Side("P4Conv 4 x 32 -> 4 x 32", lambda rngs: layers.P4Conv(32, 32, rngs=rngs)),),
    ),
)
