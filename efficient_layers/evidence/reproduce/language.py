# SPDX-License-Identifier: Apache-2.0
"""BERT, ALBERT, DistilBERT, MobileBERT, GPT-2, LoRA: parameters, and averages of printed scores."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp

from efficient_layers import measure
from efficient_layers.evidence.paper_tables import Row
from efficient_layers.evidence.reproduce.counts import NO_FAMILY, abstract, giga, mega, size
from efficient_layers.evidence.reproduce.scores import mean
from efficient_layers.evidence.verdict import Computed

Cells = Mapping[str, Computed | str]

_SENTENCE_PIECE = 30000  # ALBERT's vocabulary, in its paper's BERT rows too


def miniature(row: Row) -> Cells:
    """The GLUE score: nine tasks, AX is not among them."""
    tasks = ["CoLA", "SST-2", "MRPC", "STS-B", "QQP", ("MNLI-m", "MNLI-mm"), "QNLI", "RTE", "WNLI"]
    groups = [[row[t]] if isinstance(t, str) else [row[part] for part in t] for t in tasks]
    return {"score": mean(groups)}


def miniature_params(row: Row) -> Cells:
    """A row of the grid: one depth, four widths."""
    return {
        f"H{h}": mega(size(f"google/bert_uncased_L-{row['L']}_H-{h}_A-{h // 64}").params)
        for h in (128, 256, 512, 768)
    }


_ALBERT: dict[str, tuple[str, dict[str, Any]]] = {
    "BERT-base": ("bert-base-uncased", {"vocabulary": _SENTENCE_PIECE}),
    "BERT-large": ("bert-large-uncased", {"vocabulary": _SENTENCE_PIECE}),
    **{f"ALBERT-{s}": (f"albert-{s}-v1", {}) for s in ("base", "large", "xlarge", "xxlarge")},
}


def albert_params(row: Row) -> Cells:
    """BERT without its pooler, ALBERT with it."""
    name, fields = _ALBERT[row["model"]]
    params = size(name, **fields, num_classes=0).params
    h = {"BERT-base": 768, "BERT-large": 1024}.get(row["model"], 0)
    return {"params_M": mega(params - (h * h + h))}


def albert_average(row: Row) -> Cells:
    """Five tasks; F1 and EM of SQuAD are averaged first."""
    tasks = ("SQuAD1.1", "SQuAD2.0", "MNLI", "SST-2", "RACE")
    return {"avg": mean([row[task]] for task in tasks)}


def albert_table_2(row: Row) -> Cells:
    """Parameters and average."""
    return {**albert_params(row), **albert_average(row)}


def albert_table_3(row: Row) -> Cells:
    """Shared rows with the pooler, the others without."""
    shared = row["sharing"] == "all-shared"
    copies = 1 if shared else 12
    params = _albert_base(row["E"], copies, copies, pooler=shared)
    return {"params_M": mega(params), **albert_average(row)}


def albert_table_4(row: Row) -> Cells:
    """Attention or feed-forward layers shared by the twelve blocks; the pooler as in table 3."""
    copies = {"all-shared": (1, 1), "shared-attention": (1, 12), "shared-FFN": (12, 1)}
    pooler = row["strategy"] in copies
    params = _albert_base(row["E"], *copies.get(row["strategy"], (12, 12)), pooler=pooler)
    return {"params_M": mega(params), **albert_average(row)}


def _albert_base(e: int, attentions: int, feed_forwards: int, *, pooler: bool) -> int:
    """H = 768, E embedded features; each half of a block has its norm."""
    h = 768
    embedding = (_SENTENCE_PIECE + 512 + 2 + 2) * e + (e * h + h if e != h else 0)
    attention = 4 * (h * h + h) + 2 * h
    feed_forward = 8 * h * h + 5 * h + 2 * h
    return (
        embedding
        + attentions * attention
        + feed_forwards * feed_forward
        + (h * h + h if pooler else 0)
    )


def distilbert_sizes(row: Row) -> Cells:
    """Without classifiers; 110 is BERT's own print, to the ten."""
    names = {"BERT-base": ("bert-base-uncased", 10), "DistilBERT": ("distilbert-base-uncased", 1)}
    if row["model"] not in names:
        return {"params_M": NO_FAMILY}
    name, unit = names[row["model"]]
    return {"params_M": mega(size(name, num_classes=0).params, unit=unit)}


def distilbert_score(row: Row) -> Cells:
    """The mean of the nine printed cells."""
    tasks = ("CoLA", "MNLI", "MRPC", "QNLI", "QQP", "RTE", "SST-2", "STS-B", "WNLI")
    return {"score": mean([row[task]] for task in tasks)}


def mobilebert(row: Row) -> Cells:
    """Encoder and embeddings without pooler; FLOPs of 128 tokens."""
    if row["model"] == "MobileBERT-TINY":  # without OPT: the same counts, other norms
        return dict.fromkeys(("params_M", "flops_B"), "its block table is not among our variants")
    name = "google/mobilebert-uncased"
    model = abstract(name, num_classes=0)
    tokens = jax.ShapeDtypeStruct((1, 128), jnp.int32)
    flops = 2 * measure.cost(model, tokens).macs
    params = size(name, num_classes=0).params - (512 * 512 + 512)
    return {"params_M": mega(params), "flops_B": giga(flops)}


def gpt2(row: Row) -> Cells:
    """The output is tied to the embedding."""
    names = {12: "gpt2", 24: "gpt2-medium", 36: "gpt2-large", 48: "gpt2-xl"}
    return {"printed_params_M": mega(size(names[row["layers"]]).params)}


def lora(row: Row) -> Cells:
    """Trained parameters."""
    _, letter, method = row["method"].split(maxsplit=2)
    name, depth, d = {"M": ("gpt2-medium", 24, 1024), "L": ("gpt2-large", 36, 1280)}[letter]
    if method == "FT":
        return {"trainable_M": mega(size(name).params)}
    if method == "FT-Top2":  # blocks of 12 d^2 weights and 13 d biases and norms
        return {"trainable_M": mega(2 * (12 * d * d + 13 * d))}
    if method == "LoRA":  # rank 4, two factors, on query and value
        return {"trainable_M": Computed(Fraction(depth * 2 * 2 * 4 * d, 10**6))}
    return {"trainable_M": "the adapter's width is not printed"}


TABLES = {
    "bert_miniatures_glue": miniature,
    "bert_miniatures_params": miniature_params,
    "albert_t1": albert_params,
    "albert_t2": albert_table_2,
    "albert_t3": albert_table_3,
    "albert_t4": albert_table_4,
    "albert_readme_v2": albert_average,
    "distilbert_t1": distilbert_score,
    "distilbert_t3": distilbert_sizes,
    "mobilebert_t4": mobilebert,
    "gpt2_t2": gpt2,
    "lora_t3_params": lora,
}
