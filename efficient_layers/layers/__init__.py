# SPDX-License-Identifier: Apache-2.0
"""Layers, one mechanism a file."""

from flax.nnx import List

from efficient_layers.layers.batch_norm import BatchNorm
from efficient_layers.layers.conv import Conv
from efficient_layers.layers.conv_bn_act import ConvBNAct
from efficient_layers.layers.depthwise_conv import DepthwiseConv
from efficient_layers.layers.group_norm import GroupNorm
from efficient_layers.layers.inverted_residual import InvertedResidual
from efficient_layers.layers.layer_norm import LayerNorm
from efficient_layers.layers.lora_linear import Frozen, LoRALinear
from efficient_layers.layers.low_rank_linear import LowRankLinear
from efficient_layers.layers.make_divisible import make_divisible
from efficient_layers.layers.rms_norm import RMSNorm
from efficient_layers.layers.shuffle_unit import ShuffleUnit

__all__ = [
    "BatchNorm",
    "Conv",
    "ConvBNAct",
    "DepthwiseConv",
    "Frozen",
    "GroupNorm",
    "InvertedResidual",
    "LayerNorm",
    "List",
    "LoRALinear",
    "LowRankLinear",
    "RMSNorm",
    "ShuffleUnit",
    "make_divisible",
]
