# SPDX-License-Identifier: Apache-2.0
"""MNIST-1D, ListOps and MQAR: as published, and the same for the same seed."""

import numpy as np
import pytest
from scipy.interpolate import interp1d
from scipy.ndimage import gaussian_filter

from efficient_layers import data
from efficient_layers.data import listops, mnist1d, mqar

pytestmark = pytest.mark.fast


def test_mnist1d_has_the_published_sizes_and_statistics():
    splits = data.load("mnist1d", validation_fraction=0)
    assert splits.info.sizes == {"train": 4000, "validation": 0, "test": 1000}
    everything = mnist1d.arrays().arrays
    assert everything["image"].shape == (5000, 40, 1)
    np.testing.assert_array_equal(np.bincount(everything["label"]), [500] * 10)
    assert everything["image"].mean() == pytest.approx(0, abs=1e-6)
    assert everything["image"].std() == pytest.approx(1, abs=1e-6)


def test_mnist1d_is_the_published_generator():
    """The first signal, written out with SciPy as the authors do."""
    rng, ours = np.random.RandomState(42), np.random.RandomState(42)
    template = np.linspace(0, 0.3, 12) ** 2
    x = np.concatenate([template + 1e-8, np.zeros(36 + int(rng.rand() * 25))])
    x = interp1d(np.linspace(0, 1, len(x)), x)(np.linspace(0, 1, 72))
    x = x * (1 + 0.4 * (rng.rand() - 0.5))
    k = rng.choice(48)
    x = np.concatenate([x[-k:], x[:-k]])
    mask = x != 0
    x = mask * x + (1 - mask) * gaussian_filter(0.25 * rng.randn(72), 2)
    x = x + 0.02 * rng.randn(72)
    x = x - 0.75 * (rng.rand() - 0.5) * np.linspace(-0.5, 0.5, 72)
    expected = interp1d(np.linspace(0, 1, 72), x)(np.linspace(0, 1, 40))
    np.testing.assert_allclose(mnist1d._signal(template, ours), expected, atol=1e-12)


def test_listops_trees_have_their_value():
    source = listops.Trees(50, seed=3)
    spelled = {listops.MIN: min, listops.MAX: max, listops.CLOSE: None}
    spelled |= {listops.MED: lambda v: int(np.median(v)), listops.SUM: lambda v: sum(v) % 10}
    for row in range(50):
        example = source[row]
        count = int(example["token_mask"].sum())
        assert 30 < count < 128
        assert not example["tokens"][count:].any()
        stack = []
        for token in example["tokens"][:count].tolist():
            if token == listops.CLOSE:
                values = []
                while not callable(stack[-1]):
                    values.append(stack.pop())
                stack[-1] = spelled[token] or stack[-1](values)
            else:
                stack.append(spelled.get(token, token - listops.DIGIT))
        assert stack == [example["label"]]


def test_mqar_asks_for_what_it_gave():
    source = mqar.Recall(20, seed=1, length=64, pairs=8, vocabulary=128, random_non_queries=False)
    for row in range(20):
        tokens, target = source[row]["tokens"], source[row]["target"]
        given = dict(zip(tokens[:16:2].tolist(), tokens[1:16:2].tolist(), strict=True))
        asked = np.flatnonzero(target != mqar.IGNORED)
        assert len(given) == len(asked) == 8
        assert (asked >= 16).all()
        assert all(given[tokens[place]] == target[place] for place in asked)
        assert np.count_nonzero(tokens) == 24
        assert all(1 <= key < 64 <= value < 128 for key, value in given.items())


@pytest.mark.parametrize("name", ["listops", "mqar"])
def test_examples_follow_seed_split_and_row(name):
    one, same, other = (data.load(name, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.train[7]["tokens"], same.train[7]["tokens"])
    for different in (one.train[8], one.test[7], other.train[7]):
        assert not np.array_equal(one.train[7]["tokens"], different["tokens"])


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("mqar", {"length": 15}, ValueError, "an even length"),
        ("mqar", {"pairs": 30}, ValueError, r">= 4 \* pairs"),
        ("listops", {"max_depth": 1}, ValueError, "max_depth >= 2"),
        ("listops", {"depth": 3}, TypeError, "depth"),
        ("mnist1d", {"length": 3}, TypeError, "no such options"),
    ],
)
def test_options_that_do_not_fit(name, options, error, message):
    with pytest.raises(error, match=message):
        data.load(name, **options)
