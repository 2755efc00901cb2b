# SPDX-License-Identifier: Apache-2.0
"""MNIST-1D: 5,000 made-up signals of 40 numbers in ten classes, as published.

A template of 12 points a digit is padded, stretched, scaled, shifted, mixed with smooth and white
noise, sheared and cut down to 40 points. Seed 42 is the published data set, draw for draw: 4,000
to train on, 1,000 to test (the floats to rounding, which the authors' SciPy decides).

Reference: Greydanus and Kobak, Scaling Down Deep Learning with MNIST-1D, 2020 (arXiv 2011.14439);
the generator of github.com/greydanus/mnist1d (`mnist1d/data.py`, `transform.py`), written anew.
"""

from functools import cache

import numpy as np
from jaxtyping import Float

from efficient_layers.data.arrays import Arrays
from efficient_layers.data.source import Subset
from efficient_layers.data.splits import Info, Splits, sizes, split_train

LENGTH, EXAMPLES, TRAIN = 40, 5000, 4000
PUBLISHED_SEED = 42
_LONGEST = 72  # 12 points and at most 60 zeros, to which every signal is stretched
_PADDING = (36, 60)
_TEMPLATES = (
    (5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5),
    (5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5),
    (5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5),
    (5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5),
    (5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5),
    (5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5),
    (5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5),
    (5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5),
)

Signal = Float[np.ndarray, "n"]


def load_mnist1d(*, validation_fraction: float = 0.1, seed: int = 0) -> Splits:
    """The published data; `seed` carves validation out of the 4,000."""
    everything = arrays()
    train, validation = split_train(Subset(everything, range(TRAIN)), validation_fraction, seed)
    test = Subset(everything, range(TRAIN, EXAMPLES))
    info = Info(
        name="mnist1d",
        num_classes=10,
        image_shape=(LENGTH, 1),
        class_names=tuple("0123456789"),
        provenance=(
            f"MNIST-1D (arXiv 2011.14439) generated with seed {PUBLISHED_SEED}; the last 1,000 are "
            f"the test; validation: {validation_fraction:g} of the rest by seed {seed}"
        ),
        sizes=sizes(train, validation, test),
    )
    return Splits(train, validation, test, info)


@cache
def arrays(seed: int = PUBLISHED_SEED) -> Arrays:
    """All 5,000 in the published order: image float32 [40, 1], mean 0, variance 1; label int32."""
    rng = np.random.RandomState(seed)
    templates = np.array(_TEMPLATES)
    templates -= templates.mean(1, keepdims=True)
    templates /= templates.std(1, keepdims=True)
    templates = (templates - templates[:, :1]) / 6  # signals start and end at 0
    labels = np.repeat(np.arange(10), EXAMPLES // 10)
    signals = np.stack([_signal(templates[label], rng) for label in labels])
    order = rng.permutation(EXAMPLES)
    signals = (signals - signals.mean()) / signals.std()
    images = signals[order, :, None].astype(np.float32)
    return Arrays(image=images, label=labels[order].astype(np.int32), num_classes=10)


def _signal(template: Signal, rng: np.random.RandomState) -> Signal:
    """One example, of 40 points."""
    low, high = _PADDING
    zeros = np.zeros(low + int(rng.rand() * (high - low + 1)))
    x = _resample(np.concatenate([template + 1e-8, zeros]), _LONGEST)
    x = x * (1 + 0.4 * (rng.rand() - 0.5))
    x = np.roll(x, rng.choice(48))
    smooth = _gaussian(0.25 * rng.randn(_LONGEST))
    x = np.where(x != 0, x, smooth) + 0.02 * rng.randn(_LONGEST)
    x = x - 0.75 * (rng.rand() - 0.5) * np.linspace(-0.5, 0.5, _LONGEST)
    return _resample(x, LENGTH)


def _resample(x: Signal, length: int) -> Signal:
    """Linear interpolation at `length` equal distances."""
    return np.interp(np.linspace(0, 1, length), np.linspace(0, 1, len(x)), x)


def _gaussian(x: Signal, sigma: float = 2.0, radius: int = 8) -> Signal:
    """Convolved with a Gaussian cut at four sigma, ends mirrored (`scipy.ndimage`'s defaults)."""
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return np.convolve(np.pad(x, radius, "symmetric"), kernel / kernel.sum(), "valid")
