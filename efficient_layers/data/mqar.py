# SPDX-License-Identifier: Apache-2.0
"""MQAR, multi-query associative recall: key-value pairs, then some keys again: which value?

    tokens  2 8 4 7 0 0 4 0 0 0 0 0 2 0 0
    target  . . . . . . 7 . . . . . 8 . .      (`.` is -100: nothing to predict)

Keys are drawn from 1..v/2 - 1, values from v/2..v - 1, without replacement; the gap between a pair
and its query follows a power law, p(i) proportional to i^(power - 1).

Reference: Arora et al., Zoology: Measuring and Improving Recall in Efficient Language Models, 2023
(arXiv 2312.04927), section 3; the generator of github.com/HazyResearch/zoology
(`zoology/data/multiquery_ar.py`), written anew. Differs: each example has draws of its own, from
(seed, row), so any row is made without those before it.
"""

import numpy as np

from efficient_layers.data.source import Element
from efficient_layers.data.splits import Info, Splits, sizes

IGNORED = -100


class Recall:
    """`source[row]` -> tokens int32 [length], target int32 [length]; see the module."""

    def __init__(
        self,
        examples: int,
        seed: int,
        *,
        length: int = 64,
        pairs: int = 4,
        vocabulary: int = 8192,
        power: float = 0.01,
        random_non_queries: bool = True,
    ) -> None:
        if length % 2 or 4 * pairs > length or pairs < 1 or vocabulary < max(length, 2 * pairs + 2):
            raise ValueError(
                "mqar expects an even length >= 4 * pairs and vocabulary >= length. Got "
                f"length={length}, pairs={pairs}, vocabulary={vocabulary}."
            )
        self.examples, self.seed = examples, seed
        self.length, self.pairs, self.vocabulary = length, pairs, vocabulary
        self.random_non_queries = random_non_queries
        weights = np.arange(1, (length - 2 * pairs) // 2 + 1) ** (power - 1.0)
        self.gaps = weights / weights.sum()

    def __len__(self) -> int:
        return self.examples

    def __getitem__(self, row: int) -> Element:
        if not 0 <= row < self.examples:
            raise IndexError(f"Row {row} is outside [0, {self.examples}).")
        rng = np.random.default_rng((self.seed, row))
        half, count = self.vocabulary // 2, self.pairs
        keys = 1 + rng.choice(half - 1, count, replace=False)
        values = half + rng.choice(self.vocabulary - half, count, replace=False)
        places = 2 * count + 2 * rng.choice(len(self.gaps), count, replace=False, p=self.gaps)
        tokens = np.zeros(self.length, np.int32)
        tokens[0 : 2 * count : 2], tokens[1 : 2 * count : 2] = keys, values
        tokens[places] = keys
        target = np.full(self.length, IGNORED, np.int32)
        target[places] = values
        if self.random_non_queries:
            noise = rng.integers(0, self.vocabulary, self.length, dtype=np.int32)
            tokens = np.where(tokens == 0, noise, tokens)
        return {"tokens": tokens, "target": target}


def load_mqar(
    *,
    length: int = 64,
    seed: int = 0,
    train_examples: int = 100_000,
    test_examples: int = 3_000,
    **options: int | float | bool,
) -> Splits:
    """Train, validation and test of `Recall(length=..., **options)`, with draws of their own.

    Raises:
        ValueError: sizes that do not fit.
        TypeError: an option that there is not.
    """
    counts = (train_examples, test_examples, test_examples)
    train, validation, test = (
        Recall(count, 3 * seed + part, length=length, **options)  # type: ignore[arg-type]
        for part, count in enumerate(counts)
    )
    info = Info(
        name="mqar",
        num_classes=0,
        image_shape=(),
        class_names=(),
        provenance=(
            f"MQAR (arXiv 2312.04927): length {length}, {train.pairs} pairs, {train.vocabulary} "
            f"tokens, options {options}, seed {seed}"
        ),
        sizes=sizes(train, validation, test),
        length=length,
        vocabulary=train.vocabulary,
        per_token=True,
    )
    return Splits(train, validation, test, info)
