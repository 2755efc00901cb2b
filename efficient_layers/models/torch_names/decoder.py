# SPDX-License-Identifier: Apache-2.0
"""The decoder in transformers: `LlamaForCausalLM`, and Mistral's, Qwen2's and Qwen3's."""

from collections.abc import Iterator
from typing import Any

from efficient_layers.models.torch_weights import Pair, TorchNames


def _pairs(model: Any) -> Iterator[Pair]:
    yield Pair("embedding", "model.embed_tokens")
    for index, block in enumerate(model.blocks):
        ours, theirs = f"blocks/{index}", f"model.layers.{index}"
        yield Pair(f"{ours}/norm_1", f"{theirs}.input_layernorm")
        for part, name in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "o")):
            yield Pair(f"{ours}/attention/{part}", f"{theirs}.self_attn.{name}_proj")
        if getattr(block.attention, "query_norm", None) is not None:
            yield Pair(f"{ours}/attention/query_norm", f"{theirs}.self_attn.q_norm")
            yield Pair(f"{ours}/attention/key_norm", f"{theirs}.self_attn.k_norm")
        yield Pair(f"{ours}/norm_2", f"{theirs}.post_attention_layernorm")
        gate_up = (f"{theirs}.mlp.gate_proj", f"{theirs}.mlp.up_proj")
        yield Pair(f"{ours}/mlp/gate_up", gate_up)
        yield Pair(f"{ours}/mlp/down", f"{theirs}.mlp.down_proj")
    yield Pair("norm", "model.norm")
    if model.head is not None:
        yield Pair("head", "lm_head")


# The tied output, and the constants of RoPE in older files.
_IGNORED = r"lm_head\.weight|.*\.rotary_emb\.inv_freq"

TORCH = {"transformers": TorchNames(_pairs, head=r"(?!)", ignored=_IGNORED)}
