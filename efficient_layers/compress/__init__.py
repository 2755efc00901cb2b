# SPDX-License-Identifier: Apache-2.0
"""A model made smaller: techniques as steps on globs of module paths, one log, one replay.

>>> import efficient_layers as el
>>> from flax import nnx
>>> model = nnx.Sequential(nnx.Linear(64, 64, rngs=nnx.Rngs(0)))
>>> small, log = el.compress.apply(model, [el.compress.LowRank("layers/0", rank=8)])
>>> log.before.params, log.after.params
(4160, 1088)
"""

from efficient_layers.compress.apply import apply, rebuild
from efficient_layers.compress.awq import AWQ
from efficient_layers.compress.cluster import Cluster
from efficient_layers.compress.equalize import Equalize
from efficient_layers.compress.explain import explain
from efficient_layers.compress.finalize import Finalize, finalize
from efficient_layers.compress.fold import FoldBatchNorm
from efficient_layers.compress.gradual import gradual
from efficient_layers.compress.keep_zeros import apply_masks, has_masks, keep_zeros
from efficient_layers.compress.log import Log
from efficient_layers.compress.lottery import rewind, rounds
from efficient_layers.compress.low_rank import LowRank
from efficient_layers.compress.mixed_precision import MixedPrecision
from efficient_layers.compress.packed_file import (
    PackedSize,
    load_packed,
    packed_size,
    read_about,
    save_packed,
)
from efficient_layers.compress.prune import Prune
from efficient_layers.compress.quantize import Quantize
from efficient_layers.compress.remove_blocks import RemoveBlocks
from efficient_layers.compress.remove_channels import RemoveChannels
from efficient_layers.compress.schedule import Polynomial, polynomial
from efficient_layers.compress.share import Share
from efficient_layers.compress.smooth_quant import SmoothQuant
from efficient_layers.compress.sparse_training import rigl, sparse_evolution
from efficient_layers.compress.technique import Change, Context, Edit, Skip, Technique
from efficient_layers.compress.verdict import Verdict, compare

__all__ = [
    "AWQ",
    "Change",
    "Cluster",
    "Context",
    "Edit",
    "Equalize",
    "Finalize",
    "FoldBatchNorm",
    "Log",
    "LowRank",
    "MixedPrecision",
    "PackedSize",
    "Polynomial",
    "Prune",
    "Quantize",
    "RemoveBlocks",
    "RemoveChannels",
    "Share",
    "Skip",
    "SmoothQuant",
    "Technique",
    "Verdict",
    "apply",
    "apply_masks",
    "compare",
    "explain",
    "finalize",
    "gradual",
    "has_masks",
    "keep_zeros",
    "load_packed",
    "packed_size",
    "polynomial",
    "read_about",
    "rebuild",
    "rewind",
    "rigl",
    "rounds",
    "save_packed",
    "sparse_evolution",
]
