# SPDX-License-Identifier: Apache-2.0
"""The running interpreter's standard library as a corpus of bytes: text that is always there.

Which bytes: every `*.py` below `sysconfig.get_paths()["stdlib"]`, by sorted relative path, without
folders that distributions add to or leave out (site-packages, dist-packages, test, tests, idlelib)
and files written at build time. The same Python version gives the same corpus; its SHA-256 stands
in the run's environment.json. Whole files go to a split: every 20th is test.
"""

import hashlib
import platform
import sysconfig
from functools import cache
from pathlib import Path

import numpy as np

from efficient_layers.data.splits import Info, Splits, carve, sizes
from efficient_layers.data.tokens import ByteTokenizer, Windows

_LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idlelib", "__pycache__"}
_TEST_EVERY = 20


@cache
def files() -> tuple[tuple[str, bytes], ...]:
    """(relative path, bytes) of every file of the corpus, sorted by path."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found = {
        path.relative_to(root).as_posix(): path
        for path in root.rglob("*.py")
        if not _LEFT_OUT & set(path.relative_to(root).parts)
        and not path.name.startswith(("_sysconfigdata", "sitecustomize"))
    }
    return tuple((name, found[name].read_bytes()) for name in sorted(found))


def load_stdlib(*, length: int = 128, validation_fraction: float = 0.05, seed: int = 0) -> Splits:
    """Rows of `length` bytes (see `Windows`); validation is carved out by file."""
    corpus = files()
    test_rows = np.arange(0, len(corpus), _TEST_EVERY)
    rest = np.setdiff1d(np.arange(len(corpus)), test_rows)
    train_rows, validation_rows = carve(len(rest), validation_fraction, seed)

    def windows(rows: np.ndarray) -> Windows:
        text = b"".join(corpus[row][1] for row in rows)
        return Windows(np.frombuffer(text, np.uint8), length)

    train, test = windows(rest[train_rows]), windows(test_rows)
    validation = windows(rest[validation_rows]) if len(validation_rows) else None
    digest = hashlib.sha256(b"".join(name.encode() + text for name, text in corpus)).hexdigest()
    info = Info(
        name="stdlib",
        num_classes=0,
        image_shape=(),
        class_names=(),
        provenance=(
            f"standard library of Python {platform.python_version()}: {len(corpus)} files, "
            f"{sum(len(text) for _, text in corpus):,} bytes, sha256 {digest}; test: every "
            f"{_TEST_EVERY}th file; validation: {validation_fraction:g} of the rest by seed {seed}"
        ),
        sizes=sizes(train, validation, test),
        length=length,
        vocabulary=ByteTokenizer.vocabulary,
    )
    return Splits(train, validation, test, info)
