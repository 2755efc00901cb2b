# SPDX-License-Identifier: Apache-2.0
"""GPT-2 in transformers: `GPT2LMHeadModel`, and the bare model that the published files hold."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from efficient_layers.models.torch_weights import SAME, Pair, TorchNames


def _pairs(model: Any, prefix: str) -> Iterator[Pair]:
    yield Pair("embedding", f"{prefix}wte")
    yield Pair("positions", f"{prefix}wpe")
    for index in range(len(model.blocks)):
        ours, theirs = f"blocks/{index}", f"{prefix}h.{index}"
        qkv = tuple(f"{ours}/attention/{part}" for part in ("query", "key", "value"))
        yield Pair(f"{ours}/norm_1", f"{theirs}.ln_1")
        # Their Conv1D keeps its weight as (in, out), as we do.
        yield Pair(qkv, f"{theirs}.attn.c_attn", SAME)
        yield Pair(f"{ours}/attention/out", f"{theirs}.attn.c_proj", SAME)
        yield Pair(f"{ours}/norm_2", f"{theirs}.ln_2")
        yield Pair(f"{ours}/mlp/up", f"{theirs}.mlp.c_fc", SAME)
        yield Pair(f"{ours}/mlp/down", f"{theirs}.mlp.c_proj", SAME)
    yield Pair("norm", f"{prefix}ln_f")


# The tied output, and the triangular masks of older files.
_IGNORED = r"lm_head\.weight|.*\.attn\.(masked_)?bias"

TORCH = {
    "transformers": TorchNames(
        partial(_pairs, prefix="transformer."), head=r"(?!)", ignored=_IGNORED
    ),
    "transformers_bare": TorchNames(partial(_pairs, prefix=""), head=r"(?!)", ignored=_IGNORED),
}
