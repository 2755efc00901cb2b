# SPDX-License-Identifier: Apache-2.0
"""Layers, one mechanism a file."""

from flax.nnx import List

from efficient_layers.layers.alibi import ALiBi
from efficient_layers.layers.batch_norm import BatchNorm
from efficient_layers.layers.block_diagonal_linear import BlockDiagonalLinear
from efficient_layers.layers.block_sparse_attention import BlockSparseAttention
from efficient_layers.layers.blur_pool import BlurPool
from efficient_layers.layers.causal_conv import CausalConv
from efficient_layers.layers.clustered_conv import ClusteredConv
from efficient_layers.layers.clustered_embedding import ClusteredEmbedding
from efficient_layers.layers.clustered_linear import ClusteredLinear
from efficient_layers.layers.conv import Conv
from efficient_layers.layers.conv_bn_act import ConvBNAct
from efficient_layers.layers.conv_next_block import ConvNeXtBlock
from efficient_layers.layers.cp_conv import CPConv
from efficient_layers.layers.crelu import CReLU
from efficient_layers.layers.delta_net import DeltaNet
from efficient_layers.layers.depthwise_conv import DepthwiseConv
from efficient_layers.layers.diagonal_ssm import DiagonalSSM
from efficient_layers.layers.drop_path import DropPath
from efficient_layers.layers.embedding import Embedding
from efficient_layers.layers.factorized_conv import FactorizedConv
from efficient_layers.layers.factorized_embedding import FactorizedEmbedding
from efficient_layers.layers.factorized_linear import FactorizedLinear
from efficient_layers.layers.fire import Fire
from efficient_layers.layers.fused_mb_conv import FusedMBConv
from efficient_layers.layers.gated_linear_attention import GatedLinearAttention
from efficient_layers.layers.gated_linear_unit import GEGLU, GatedLinearUnit, SwiGLU
from efficient_layers.layers.ghost import GhostBottleneck, GhostModule
from efficient_layers.layers.group_norm import GroupNorm
from efficient_layers.layers.hash_embedding import HashEmbedding
from efficient_layers.layers.hashed_linear import HashedLinear
from efficient_layers.layers.identity import Identity
from efficient_layers.layers.int_embedding import IntEmbedding
from efficient_layers.layers.inverted_residual import InvertedResidual
from efficient_layers.layers.kronecker_linear import KroneckerLinear
from efficient_layers.layers.kv_cache import KVCache
from efficient_layers.layers.layer_norm import LayerNorm
from efficient_layers.layers.linear_attention import LinearAttention
from efficient_layers.layers.linformer import Linformer
from efficient_layers.layers.lora_linear import Frozen, LoRALinear
from efficient_layers.layers.low_rank_linear import LowRankLinear
from efficient_layers.layers.lstm import GRU, LSTM
from efficient_layers.layers.make_divisible import make_divisible
from efficient_layers.layers.min_gru import MinGRU
from efficient_layers.layers.mixture_of_experts import MixtureOfExperts
from efficient_layers.layers.monarch_linear import MonarchLinear
from efficient_layers.layers.multi_head_attention import (
    GroupedQueryAttention,
    MultiHeadAttention,
    MultiQueryAttention,
)
from efficient_layers.layers.nystrom_attention import NystromAttention
from efficient_layers.layers.p4_conv import P4Conv
from efficient_layers.layers.performer import Performer
from efficient_layers.layers.quant_conv import IntConv, QuantConv
from efficient_layers.layers.quant_embedding import QuantEmbedding
from efficient_layers.layers.quant_linear import IntLinear, QuantLinear
from efficient_layers.layers.quant_param import QuantParam, QuantScale
from efficient_layers.layers.quant_spec import QuantSpec
from efficient_layers.layers.quotient_remainder_embedding import QuotientRemainderEmbedding
from efficient_layers.layers.random_projection_embedding import RandomProjectionEmbedding
from efficient_layers.layers.relative_bias import RelativeBias, RelativePosition
from efficient_layers.layers.rep_vgg import RepVGGBlock
from efficient_layers.layers.rms_norm import RMSNorm
from efficient_layers.layers.rope import RoPE
from efficient_layers.layers.separable_conv import SeparableConv
from efficient_layers.layers.shared_stack import SharedStack
from efficient_layers.layers.shuffle_unit import ShuffleUnit
from efficient_layers.layers.sliding_window_attention import SlidingWindowAttention
from efficient_layers.layers.sparse_linear import SparseLinear
from efficient_layers.layers.spatial_separable_conv import SpatialSeparableConv
from efficient_layers.layers.squeeze_excite import SqueezeExcite
from efficient_layers.layers.standardized_conv import StandardizedConv
from efficient_layers.layers.tied_linear import tied_linear
from efficient_layers.layers.tucker_conv import TuckerConv
from efficient_layers.ops.activation import hard_sigmoid, hard_swish
from efficient_layers.ops.block_sparse import BlockPattern

__all__ = [
    "GEGLU",
    "GRU",
    "LSTM",
    "ALiBi",
    "BatchNorm",
    "BlockDiagonalLinear",
    "BlockPattern",
    "BlockSparseAttention",
    "BlurPool",
    "CPConv",
    "CReLU",
    "CausalConv",
    "ClusteredConv",
    "ClusteredEmbedding",
    "ClusteredLinear",
    "Conv",
    "ConvBNAct",
    "ConvNeXtBlock",
    "DeltaNet",
    "DepthwiseConv",
    "DiagonalSSM",
    "DropPath",
    "Embedding",
    "FactorizedConv",
    "FactorizedEmbedding",
    "FactorizedLinear",
    "Fire",
    "Frozen",
    "FusedMBConv",
    "GatedLinearAttention",
    "GatedLinearUnit",
    "GhostBottleneck",
    "GhostModule",
    "GroupNorm",
    "GroupedQueryAttention",
    "HashEmbedding",
    "HashedLinear",
    "Identity",
    "IntConv",
    "IntEmbedding",
    "IntLinear",
    "InvertedResidual",
    "KVCache",
    "KroneckerLinear",
    "LayerNorm",
    "LinearAttention",
    "Linformer",
    "List",
    "LoRALinear",
    "LowRankLinear",
    "MinGRU",
    "MixtureOfExperts",
    "MonarchLinear",
    "MultiHeadAttention",
    "MultiQueryAttention",
    "NystromAttention",
    "P4Conv",
    "Performer",
    "QuantConv",
    "QuantEmbedding",
    "QuantLinear",
    "QuantParam",
    "QuantScale",
    "QuantSpec",
    "QuotientRemainderEmbedding",
    "RMSNorm",
    "RandomProjectionEmbedding",
    "RelativeBias",
    "RelativePosition",
    "RepVGGBlock",
    "RoPE",
    "SeparableConv",
    "SharedStack",
    "ShuffleUnit",
    "SlidingWindowAttention",
    "SparseLinear",
    "SpatialSeparableConv",
    "SqueezeExcite",
    "StandardizedConv",
    "SwiGLU",
    "TuckerConv",
    "hard_sigmoid",
    "hard_swish",
    "make_divisible",
    "tied_linear",
]
