# SPDX-License-Identifier: Apache-2.0
"""Layers, one mechanism a file."""

from flax.nnx import List

from efficient_layers.layers.batch_norm import BatchNorm
from efficient_layers.layers.block_diagonal_linear import BlockDiagonalLinear
from efficient_layers.layers.conv import Conv
from efficient_layers.layers.conv_bn_act import ConvBNAct
from efficient_layers.layers.conv_next_block import ConvNeXtBlock
from efficient_layers.layers.depthwise_conv import DepthwiseConv
from efficient_layers.layers.fire import Fire
from efficient_layers.layers.ghost import GhostBottleneck, GhostModule
from efficient_layers.layers.group_norm import GroupNorm
from efficient_layers.layers.inverted_residual import InvertedResidual
from efficient_layers.layers.kronecker_linear import KroneckerLinear
from efficient_layers.layers.layer_norm import LayerNorm
from efficient_layers.layers.lora_linear import Frozen, LoRALinear
from efficient_layers.layers.low_rank_conv import CPConv, SpatialSeparableConv, TuckerConv
from efficient_layers.layers.low_rank_linear import LowRankLinear
from efficient_layers.layers.make_divisible import make_divisible
from efficient_layers.layers.monarch_linear import MonarchLinear
from efficient_layers.layers.rep_vgg import RepVGGBlock
from efficient_layers.layers.rms_norm import RMSNorm
from efficient_layers.layers.shuffle_unit import ShuffleUnit

__all__ = [
    "BatchNorm",
    "BlockDiagonalLinear",
    "CPConv",
    "Conv",
    "ConvBNAct",
    "ConvNeXtBlock",
    "DepthwiseConv",
    "Fire",
    "Frozen",
    "GhostBottleneck",
    "GhostModule",
    "GroupNorm",
    "InvertedResidual",
    "KroneckerLinear",
    "LayerNorm",
    "List",
    "LoRALinear",
    "LowRankLinear",
    "MonarchLinear",
    "RMSNorm",
    "RepVGGBlock",
    "ShuffleUnit",
    "SpatialSeparableConv",
    "TuckerConv",
    "make_divisible",
]
