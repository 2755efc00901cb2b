# SPDX-License-Identifier: Apache-2.0
"""ListOps: nested operations on digits, `[MAX 4 3 [MIN 2 3 ] 1 0 ]`, whose value is the class.

Reference: Nangia and Bowman, ListOps, 2018 (arXiv 1804.06028), in the form of Tay et al., Long
Range Arena, 2020 (arXiv 2011.04006), section 2.2: operators MIN, MAX, MED (the median, cut to an
integer) and SUM_MOD; a node is an operator with probability 0.25 while it is above `max_depth`;
2 to `max_arguments` arguments; trees with `min_length` < tokens < `max_length` are kept (brackets
that only group are dropped, as their tokeniser does). Written anew. Differs: each example has draws
of its own, from (seed, row), and the published split (a Python set's order) cannot be repeated.
The defaults are a small task; the arena's is 500 < tokens < 2000, depth and arguments 10, 96,000.
"""

import random
from collections.abc import Callable

import numpy as np

from efficient_layers.data.arrays import Cached
from efficient_layers.data.source import Element
from efficient_layers.data.splits import Info, Splits, sizes

PAD, DIGIT, MIN, MAX, MED, SUM, CLOSE = 0, 1, 11, 12, 13, 14, 15
VOCABULARY = 16
"""Padding, the ten digits (1 + value), four opening operators, one closing bracket."""

_OPERATOR_SHARE = 0.25


class Trees:
    """`source[row]` -> tokens int32 [max_length], token_mask float32 [max_length], label int32."""

    num_classes = 10

    def __init__(
        self,
        examples: int,
        seed: int,
        *,
        min_length: int = 30,
        max_length: int = 128,
        max_depth: int = 5,
        max_arguments: int = 5,
    ) -> None:
        if not 0 <= min_length < max_length - 1 or max_depth < 2 or max_arguments < 2:
            raise ValueError(
                "listops expects min_length < max_length - 1, max_depth >= 2 and max_arguments >= "
                f"2. Got {min_length}, {max_length}, {max_depth}, {max_arguments}."
            )
        self.examples, self.seed, self.length = examples, seed, max_length
        self.min_length, self.max_depth = min_length, max_depth
        self.max_arguments = max_arguments

    def __len__(self) -> int:
        return self.examples

    def __getitem__(self, row: int) -> Element:
        if not 0 <= row < self.examples:
            raise IndexError(f"Row {row} is outside [0, {self.examples}).")
        # Only `random()`: its stream is the same in every Python.
        draw = random.Random(self.seed << 32 | row).random
        while True:
            written: list[int] = []
            value = self._operation(draw, 1, written)
            if self.min_length < len(written) < self.length:
                break
        tokens = np.zeros(self.length, np.int32)
        tokens[: len(written)] = written
        mask = (np.arange(self.length) < len(written)).astype(np.float32)
        return {"tokens": tokens, "token_mask": mask, "label": np.int32(value)}

    def _operation(self, draw: Callable[[], float], depth: int, written: list[int]) -> int:
        """Writes an operator with its arguments; its value. A root of one digit is too short."""
        operator = MIN + int(4 * draw())
        written.append(operator)
        values = []
        for _ in range(2 + int((self.max_arguments - 1) * draw())):
            if len(written) > self.length:  # too long already: whatever comes is thrown away
                return 0
            if depth + 1 < self.max_depth and draw() <= _OPERATOR_SHARE:
                values.append(self._operation(draw, depth + 1, written))
            else:
                values.append(int(10 * draw()))
                written.append(DIGIT + values[-1])
        written.append(CLOSE)
        return evaluate(operator, values)


def evaluate(operator: int, values: list[int]) -> int:
    """The value of an operator token on its arguments, 0..9."""
    if operator == MED:
        ordered, middle = sorted(values), len(values) // 2
        return ordered[middle] if len(values) % 2 else (ordered[middle - 1] + ordered[middle]) // 2
    if operator == SUM:
        return sum(values) % 10
    return min(values) if operator == MIN else max(values)


def load_listops(
    *,
    length: int = 128,
    seed: int = 0,
    train_examples: int = 20_000,
    test_examples: int = 2_000,
    **options: int,
) -> Splits:
    """Train, validation and test with draws of their own; `length` is `max_length`.

    Trees are made when they are first asked for, and kept.

    Raises:
        ValueError: sizes that do not fit.
        TypeError: an option that there is not.
    """
    counts = (train_examples, test_examples, test_examples)
    train, validation, test = (
        Cached(Trees(count, 3 * seed + part, max_length=length, **options))
        for part, count in enumerate(counts)
    )
    info = Info(
        name="listops",
        num_classes=10,
        image_shape=(),
        class_names=tuple("0123456789"),
        provenance=f"ListOps (arXiv 2011.04006): length {length}, options {options}, seed {seed}",
        sizes=sizes(train, validation, test),
        length=length,
        vocabulary=VOCABULARY,
        padded=True,
    )
    return Splits(train, validation, test, info)
