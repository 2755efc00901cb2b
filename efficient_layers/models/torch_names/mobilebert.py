# SPDX-License-Identifier: Apache-2.0
"""MobileBERT in transformers: bare, `...ForSequenceClassification`, `...ForMaskedLM`."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from efficient_layers.models.torch_names.bert import embedding_pairs, own_prefix
from efficient_layers.models.torch_weights import SAME, Pair, TorchNames


def _pairs(model: Any, prefix: str | None) -> Iterator[Pair]:
    prefix = own_prefix(model, "mobilebert.") if prefix is None else prefix
    yield from embedding_pairs(model, f"{prefix}embeddings")
    yield Pair("embeddings/project", f"{prefix}embeddings.embedding_transformation")
    for index, block in enumerate(model.blocks):
        yield from _block(block, f"blocks/{index}", f"{prefix}encoder.layer.{index}")
    if model.pooler is not None:
        yield Pair("pooler", f"{prefix}pooler.dense")
    if model.classifier is not None:
        yield Pair("classifier", "classifier")
    if model.mlm is not None:
        yield Pair("mlm/dense", "cls.predictions.transform.dense")
        yield Pair("mlm/norm", "cls.predictions.transform.LayerNorm")
        # A linear layer of theirs used transposed: its (out, in) is our (in, out).
        yield Pair("mlm/rest/kernel", "cls.predictions.dense.weight", SAME)
        yield Pair("mlm/rest/bias", "cls.predictions.bias")


def _block(block: Any, ours: str, theirs: str) -> Iterator[Pair]:
    reductions = {"reduce": "input", "attention_reduce": "attention"}
    for part, name in reductions.items():
        if getattr(block, part) is not None:
            yield Pair(f"{ours}/{part}/dense", f"{theirs}.bottleneck.{name}.dense")
            yield Pair(f"{ours}/{part}/norm", f"{theirs}.bottleneck.{name}.LayerNorm")
    for part in ("query", "key", "value"):
        yield Pair(f"{ours}/attention/{part}", f"{theirs}.attention.self.{part}")
    yield Pair(f"{ours}/attention/out", f"{theirs}.attention.output.dense")
    yield Pair(f"{ours}/attention_norm", f"{theirs}.attention.output.LayerNorm")
    *first, last = range(len(block.mlps))
    for index, name in [*((i, f"{theirs}.ffn.{i}") for i in first), (last, theirs)]:
        yield Pair(f"{ours}/mlps/{index}/up", f"{name}.intermediate.dense")
        yield Pair(f"{ours}/mlps/{index}/down", f"{name}.output.dense")
        yield Pair(f"{ours}/mlps/{index}/norm", f"{name}.output.LayerNorm")
    yield Pair(f"{ours}/expand", f"{theirs}.output.bottleneck.dense")
    yield Pair(f"{ours}/norm", f"{theirs}.output.bottleneck.LayerNorm")


_NAMES = partial(
    TorchNames,
    head=r"(mobilebert\.)?pooler\..*|classifier\..*|cls\..*",
    ignored=r"(.*\.)?position_ids|cls\.predictions\.decoder\.(weight|bias)",
)

TORCH = {
    "transformers": _NAMES(partial(_pairs, prefix=None)),
    "transformers_whole": _NAMES(partial(_pairs, prefix="mobilebert.")),
    "transformers_bare": _NAMES(partial(_pairs, prefix="")),
}
