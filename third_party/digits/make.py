# SPDX-License-Identifier: Apache-2.0
"""Build `efficient_layers/data/digits.npz` from scikit-learn's copy of the UCI digits.

Run `python third_party/digits/make.py` (needs scikit-learn) to write the file, or with `--check` to
compare the committed file with scikit-learn's copy. The archive is not compressed and carries no
time, so the same input gives the same bytes on every machine.
"""

import hashlib
import sys
from pathlib import Path

import numpy as np

TARGET = Path(__file__).parents[2] / "efficient_layers" / "data" / "digits.npz"


def upstream() -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [1797, 8, 8] in 0..16 and labels uint8 [1797], in scikit-learn's order."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.images.astype(np.uint8), digits.target.astype(np.uint8)


def main(arguments: list[str]) -> int:
    """Write the archive, or compare it; returns the exit status."""
    images, labels = upstream()
    if "--check" in arguments:
        with np.load(TARGET) as stored:
            same = np.array_equal(stored["images"], images) and np.array_equal(
                stored["labels"], labels
            )
        print("equal to scikit-learn's copy" if same else "DIFFERS from scikit-learn's copy")
        return 0 if same else 1
    np.savez(TARGET, images=images, labels=labels)
    print(f"{TARGET} sha256 {hashlib.sha256(TARGET.read_bytes()).hexdigest()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
