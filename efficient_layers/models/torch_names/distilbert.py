# SPDX-License-Identifier: Apache-2.0
"""DistilBERT in transformers: bare, `...ForSequenceClassification`, `...ForMaskedLM`."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from efficient_layers.models.torch_names.bert import embedding_pairs, own_prefix
from efficient_layers.models.torch_weights import Pair, TorchNames

_BLOCK = {
    "attention/query": "attention.q_lin",
    "attention/key": "attention.k_lin",
    "attention/value": "attention.v_lin",
    "attention/out": "attention.out_lin",
    "norm_1": "sa_layer_norm",
    "up": "ffn.lin1",
    "down": "ffn.lin2",
    "norm_2": "output_layer_norm",
}


def _pairs(model: Any, prefix: str | None) -> Iterator[Pair]:
    prefix = own_prefix(model, "distilbert.") if prefix is None else prefix
    yield from embedding_pairs(model, f"{prefix}embeddings")
    for index in range(len(model.blocks)):
        for ours, theirs in _BLOCK.items():
            yield Pair(f"blocks/{index}/{ours}", f"{prefix}transformer.layer.{index}.{theirs}")
    if model.classifier is not None:
        yield Pair("pre_classifier", "pre_classifier")
        yield Pair("classifier", "classifier")
    if model.mlm is not None:
        yield Pair("mlm/dense", "vocab_transform")
        yield Pair("mlm/norm", "vocab_layer_norm")
        yield Pair("mlm/bias", "vocab_projector.bias")


_NAMES = partial(
    TorchNames,
    head=r"(pre_)?classifier\..*|vocab_(transform|layer_norm|projector)\..*",
    ignored=r"(.*\.)?position_ids|vocab_projector\.weight",
)

TORCH = {
    "transformers": _NAMES(partial(_pairs, prefix=None)),
    "transformers_whole": _NAMES(partial(_pairs, prefix="distilbert.")),
    "transformers_bare": _NAMES(partial(_pairs, prefix="")),
}
