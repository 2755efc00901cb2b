# SPDX-License-Identifier: Apache-2.0
"""Text as tokens: the byte tokenizer, windows of a corpus, padded rows of single texts."""

from typing import Any, Protocol

import numpy as np
from jaxtyping import Int

from efficient_layers.data.source import Batch, Element, Rows, Source, read_elements

PAD, MASK, CLASS = 256, 257, 258


class Tokenizer(Protocol):
    """Text (UTF-8 bytes) to tokens; `first` and `last` stand around a single text."""

    vocabulary: int
    pad: int
    first: tuple[int, ...]
    last: tuple[int, ...]

    def __call__(self, text: bytes, /) -> Int[np.ndarray, "n"]: ...


class ByteTokenizer:
    """A token a byte, 0..255; besides 256 for padding, 257 for hidden tokens, 258 before a text."""

    vocabulary: int = 259
    pad: int = PAD
    first: tuple[int, ...] = (CLASS,)
    last: tuple[int, ...] = ()

    def __call__(self, text: bytes, /) -> Int[np.ndarray, "n"]:
        return np.frombuffer(text, np.uint8)


class Windows:
    """A corpus cut into rows of `length` tokens that follow each other; what is left over goes.

    `source[row]` -> tokens int32 [length]. The corpus stays as it is given (uint8: a byte a token).

    Raises:
        ValueError: the corpus is shorter than one row.
    """

    def __init__(self, corpus: Int[np.ndarray, "n"], length: int) -> None:
        count = len(corpus) // length
        if not count:
            raise ValueError(
                f"a split of {len(corpus)} tokens has no row of {length}: set a smaller data.length"
            )
        self.rows = corpus[: count * length].reshape(count, length)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Element:
        return {"tokens": self.rows[row].astype(np.int32)}

    def batch(self, rows: Rows) -> Batch:
        """The rows stacked."""
        return {"tokens": self.rows[rows].astype(np.int32)}


class Texts:
    """Texts of a source as rows of one length: cut where longer, padded where shorter.

    `source[row]` -> tokens int32 [length], token_mask float32 [length], label int32. The source
    gives `{"text": bytes, "label": ...}`.
    """

    def __init__(self, source: Source, tokenizer: Tokenizer, length: int) -> None:
        if length <= len(tokenizer.first) + len(tokenizer.last):
            raise ValueError(f"data.length must have room for a text. Got {length}.")
        self.source, self.tokenizer, self.length = source, tokenizer, length

    @property
    def num_classes(self) -> int | None:
        """The number of classes of the source, None where it is not known."""
        return getattr(self.source, "num_classes", None)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, row: int) -> Element:
        return self._row(self.source[row])

    def read_many(self, rows: Rows) -> list[Element]:
        """The examples at `rows`, in that order."""
        return [self._row(element) for element in read_elements(self.source, rows)]

    def _row(self, element: dict[str, Any]) -> Element:
        first, last = self.tokenizer.first, self.tokenizer.last
        room = self.length - len(first) - len(last)
        text = self.tokenizer(element["text"])[:room]
        used = len(first) + len(text) + len(last)
        tokens = np.full(self.length, self.tokenizer.pad, np.int32)
        tokens[:used] = np.concatenate([first, text, last])
        mask = (np.arange(self.length) < used).astype(np.float32)
        return {"tokens": tokens, "token_mask": mask, "label": np.int32(element["label"])}
