# SPDX-License-Identifier: Apache-2.0
"""BERT's uncased WordPiece tokenizer over a vocabulary file (one piece a line, `vocab.txt`).

Text is lower-cased, accents and control characters dropped, cut at spaces, punctuation and CJK
characters; then each word is split greedily into the longest pieces of the vocabulary, "##" before
all but the first. Reference: Devlin et al., 2018 (arXiv 1810.04805), section 3; Wu et al., 2016
(arXiv 1609.08144), section 4.1; the same pieces as transformers' `BertTokenizer` (tested).
"""

import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Int

_CJK: tuple[tuple[int, int], ...]
_CJK = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F))
_CJK += ((0x2B740, 0x2B81F), (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F))
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


class WordPiece:
    """`tokenizer(text) -> pieces`, without [CLS] and [SEP], which are `first` and `last`.

    Raises:
        ValueError: no such file, or one without BERT's special pieces.
    """

    def __init__(self, path: str | Path) -> None:
        if not Path(path).is_file():
            raise ValueError(f"There is no vocabulary (vocab.txt of a BERT) at {path}.")
        lines = Path(path).read_text(encoding="utf-8").split("\n")
        self.ids = {piece.rstrip("\r"): i for i, piece in enumerate(lines) if piece}
        if missing := [piece for piece in _SPECIAL if piece not in self.ids]:
            raise ValueError(f"{path} is no vocabulary of BERT: it lacks {', '.join(missing)}.")
        self.vocabulary = max(self.ids.values()) + 1
        self.pad, self.unknown = self.ids["[PAD]"], self.ids["[UNK]"]
        self.first: tuple[int, ...] = (self.ids["[CLS]"],)
        self.last: tuple[int, ...] = (self.ids["[SEP]"],)

    def __call__(self, text: bytes, /) -> Int[np.ndarray, "n"]:
        words = _words(text.decode("utf-8", "replace"))
        return np.array([i for word in words for i in self._pieces(word)], np.int32)

    def _pieces(self, word: str) -> list[int]:
        """Longest first; a word with a part that is in no piece, or over 100 long, is unknown."""
        pieces, start = [], 0
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = self.ids.get(("##" if start else "") + word[start:end])
                if piece is not None:
                    break
            else:
                return [self.unknown]
            pieces.append(piece)
            start = end
        return pieces if len(word) <= 100 else [self.unknown]


def _words(text: str) -> Iterator[str]:
    """Lower-case words without accents; punctuation and CJK characters stand alone."""
    kept = "".join(" " if c in "\t\n\r" else c for c in text if _is_text(c))
    for word in unicodedata.normalize("NFD", kept.lower()).split():
        plain = "".join(c for c in word if unicodedata.category(c) != "Mn")
        yield from "".join(f" {c} " if _stands_alone(c) else c for c in plain).split()


def _is_text(c: str) -> bool:
    if c in "\t\n\r":
        return True
    return c not in "\0\ufffd" and not unicodedata.category(c).startswith("C")


def _stands_alone(c: str) -> bool:
    code = ord(c)
    ascii_sign = 33 <= code <= 126 and not c.isalnum()
    cjk = any(low <= code <= high for low, high in _CJK)
    return ascii_sign or cjk or unicodedata.category(c).startswith("P")
