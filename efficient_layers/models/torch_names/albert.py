# SPDX-License-Identifier: Apache-2.0
"""ALBERT in transformers: `AlbertModel`, `...ForSequenceClassification`, `...ForMaskedLM`."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from efficient_layers.models.torch_names.bert import embedding_pairs, own_prefix
from efficient_layers.models.torch_weights import Pair, TorchNames

_BLOCK = {
    "attention/query": "attention.query",
    "attention/key": "attention.key",
    "attention/value": "attention.value",
    "attention/out": "attention.dense",
    "norm_1": "attention.LayerNorm",
    "up": "ffn",
    "down": "ffn_output",
    "norm_2": "full_layer_layer_norm",
}


def _pairs(model: Any, prefix: str | None) -> Iterator[Pair]:
    prefix = own_prefix(model, "albert.") if prefix is None else prefix
    yield from embedding_pairs(model, f"{prefix}embeddings")
    yield Pair("project", f"{prefix}encoder.embedding_hidden_mapping_in")
    for group in range(model.config.groups):
        place = f"{prefix}encoder.albert_layer_groups.{group}.albert_layers.0"
        for ours, theirs in _BLOCK.items():
            yield Pair(f"blocks/layers/{group}/{ours}", f"{place}.{theirs}")
    if model.pooler is not None:
        yield Pair("pooler", f"{prefix}pooler")
    if model.classifier is not None:
        yield Pair("classifier", "classifier")
    if model.mlm is not None:
        yield Pair("mlm/dense", "predictions.dense")
        yield Pair("mlm/norm", "predictions.LayerNorm")
        yield Pair("mlm/bias", "predictions.bias")


_NAMES = partial(
    TorchNames,
    head=r"(albert\.)?pooler\..*|classifier\..*|predictions\..*|sop_classifier\..*",
    ignored=r"(.*\.)?position_ids|predictions\.decoder\.(weight|bias)",
)

TORCH = {
    "transformers": _NAMES(partial(_pairs, prefix=None)),
    "transformers_whole": _NAMES(partial(_pairs, prefix="albert.")),
    "transformers_bare": _NAMES(partial(_pairs, prefix="")),
}
