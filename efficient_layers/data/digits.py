# SPDX-License-Identifier: Apache-2.0
"""UCI handwritten digits, bundled: 1,797 real images of 8x8 pixels in ten classes.

The 8x8 form has intensities 0..16. Provenance and licence: third_party/digits/README.md. The test
split is fixed (rows with index % 5 == 0, 360 images); validation is drawn by seed from the rest.
"""

from functools import cache
from importlib import resources

import numpy as np

from efficient_layers.data.arrays import Arrays
from efficient_layers.data.source import Subset
from efficient_layers.data.splits import Info, Splits, sizes, split_train

SHA256 = "1dc781c8fe699ce12f056a510e6dd518c795428f089effc1a3e2eec0f3ece269"
LARGEST = 16.0
"""The largest intensity: images are divided by it, so they lie in [0, 1]."""


@cache
def arrays() -> Arrays:
    """All 1,797 examples in the published order: image float32 [8, 8, 1] in [0, 1], label int32."""
    with resources.files("efficient_layers.data").joinpath("digits.npz").open("rb") as file:
        stored = np.load(file)
        images, labels = stored["images"], stored["labels"]
    scaled = images[..., None].astype(np.float32) / np.float32(LARGEST)
    return Arrays(image=scaled, label=labels.astype(np.int32), num_classes=10)


def load_digits(*, validation_fraction: float = 0.15, seed: int = 0) -> Splits:
    """The digits with their fixed test split; validation is carved from the rest by `seed`."""
    everything = arrays()
    rows = np.arange(len(everything))
    test = Subset(everything, rows[rows % 5 == 0])
    rest = Subset(everything, rows[rows % 5 != 0])
    train, validation = split_train(rest, validation_fraction, seed)
    info = Info(
        name="digits",
        num_classes=10,
        image_shape=(8, 8, 1),
        class_names=tuple("0123456789"),
        provenance=(
            "UCI Optical Recognition of Handwritten Digits (doi 10.24432/C50P49), its test part as "
            f"distributed by scikit-learn; digits.npz sha256 {SHA256}; test: rows with index % 5 "
            f"== 0; validation: {validation_fraction:g} of the rest by seed {seed}"
        ),
        sizes=sizes(train, validation, test),
    )
    return Splits(train, validation, test, info)
