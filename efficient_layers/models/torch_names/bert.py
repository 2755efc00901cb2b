# SPDX-License-Identifier: Apache-2.0
"""BERT in transformers: `BertModel`, `BertForSequenceClassification`, `BertForMaskedLM`.

The names of the first begin without `bert.`. Published files often hold more than a model needs
(`BertForPreTraining`), or no head: so each model can be read from names of either kind.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

from efficient_layers.models.torch_weights import Pair, TorchNames


def _pairs(model: Any, prefix: str | None) -> Iterator[Pair]:
    prefix = own_prefix(model, "bert.") if prefix is None else prefix
    yield from embedding_pairs(model, f"{prefix}embeddings")
    for index in range(len(model.blocks)):
        ours, theirs = f"blocks/{index}", f"{prefix}encoder.layer.{index}"
        for part in ("query", "key", "value"):
            yield Pair(f"{ours}/attention/{part}", f"{theirs}.attention.self.{part}")
        yield Pair(f"{ours}/attention/out", f"{theirs}.attention.output.dense")
        yield Pair(f"{ours}/norm_1", f"{theirs}.attention.output.LayerNorm")
        yield Pair(f"{ours}/up", f"{theirs}.intermediate.dense")
        yield Pair(f"{ours}/down", f"{theirs}.output.dense")
        yield Pair(f"{ours}/norm_2", f"{theirs}.output.LayerNorm")
    if model.pooler is not None:
        yield Pair("pooler", f"{prefix}pooler.dense")
    if model.classifier is not None:
        yield Pair("classifier", "classifier")
    if model.mlm is not None:
        yield Pair("mlm/dense", "cls.predictions.transform.dense")
        yield Pair("mlm/norm", "cls.predictions.transform.LayerNorm")
        yield Pair("mlm/bias", "cls.predictions.bias")


def own_prefix(model: Any, prefix: str) -> str:
    """`prefix` for a model with a head on its encoder."""
    return "" if model.classifier is None and model.mlm is None else prefix


def embedding_pairs(model: Any, theirs: str) -> Iterator[Pair]:
    """Tables and norm of the embeddings, as all relatives of BERT name them."""
    yield Pair("embeddings/tokens", f"{theirs}.word_embeddings")
    yield Pair("embeddings/positions", f"{theirs}.position_embeddings")
    if model.embeddings.segments is not None:
        yield Pair("embeddings/segments", f"{theirs}.token_type_embeddings")
    yield Pair("embeddings/norm", f"{theirs}.LayerNorm")


_NAMES = partial(
    TorchNames,
    head=r"(bert\.)?pooler\..*|classifier\..*|cls\..*",
    ignored=r"(.*\.)?position_ids|cls\.predictions\.decoder\.(weight|bias)",
    older=((r"\.gamma$", ".weight"), (r"\.beta$", ".bias")),
)

TORCH = {
    "transformers": _NAMES(partial(_pairs, prefix=None)),
    "transformers_whole": _NAMES(partial(_pairs, prefix="bert.")),
    "transformers_bare": _NAMES(partial(_pairs, prefix="")),
}
