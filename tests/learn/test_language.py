# SPDX-License-Identifier: Apache-2.0
"""Objectives on tokens against sums written out in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import learn
from efficient_layers.learn.language import hide

pytestmark = pytest.mark.fast

TABLE = np.random.default_rng(0).normal(size=(300, 300)).astype(np.float32)


def bigram(tokens):
    """Logits [b, n, v] that depend on the token alone."""
    return jnp.asarray(TABLE)[tokens]


def nats(token, target):
    row = TABLE[token].astype(np.float64)
    return float(np.log(np.exp(row).sum()) - row[target])


def tokens(shape, high=256, seed=1):
    return np.random.default_rng(seed).integers(0, high, shape).astype(np.int32)


def test_the_next_token_is_the_label():
    x = tokens((2, 5))
    loss, metrics = learn.language_modelling()(bigram, {"tokens": x}, None)
    expected = np.mean([nats(x[b, i], x[b, i + 1]) for b in range(2) for i in range(4)])
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose(metrics["bits_per_byte"], expected / np.log(2), rtol=1e-6)
    np.testing.assert_allclose(metrics["perplexity"], np.exp(expected), rtol=1e-5)


def test_padding_and_masked_rows_do_not_count():
    x = tokens((2, 5))
    kept = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.float32)
    batch = {"tokens": x, "token_mask": kept, "mask": np.array([1, 0], np.float32)}
    loss, _ = learn.language_modelling()(bigram, batch, None)
    expected = np.mean([nats(x[0, i], x[0, i + 1]) for i in range(2)])
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_targets_of_the_data_set_are_taken_where_they_are():
    x, target = tokens((1, 4)), np.array([[-100, 7, -100, 9]], np.int32)
    loss, metrics = learn.language_modelling()(bigram, {"tokens": x, "target": target}, None)
    np.testing.assert_allclose(loss, (nats(x[0, 1], 7) + nats(x[0, 3], 9)) / 2, rtol=1e-6)
    assert metrics["accuracy"] == 0


def test_hidden_tokens_are_80_10_10_and_follow_the_key():
    x = tokens((64, 256))
    free = x != 5
    key = jax.random.key(3)
    hidden, chosen = hide(key, x, free, rate=0.15, mask_token=257, vocabulary=256)
    again, _ = hide(key, x, free, rate=0.15, mask_token=257, vocabulary=256)
    other, _ = hide(jax.random.key(4), x, free, rate=0.15, mask_token=257, vocabulary=256)
    np.testing.assert_array_equal(hidden, again)
    assert (hidden != other).any()
    chosen, hidden = np.asarray(chosen) > 0, np.asarray(hidden)
    assert not chosen[x == 5].any()
    np.testing.assert_array_equal(hidden[~chosen], x[~chosen])
    assert chosen[free].mean() == pytest.approx(0.15, abs=0.01)
    assert (hidden[chosen] == 257).mean() == pytest.approx(0.8, abs=0.03)
    assert (hidden[chosen] == x[chosen]).mean() == pytest.approx(0.1, abs=0.03)


def test_masked_language_modelling_scores_the_chosen_alone():
    x = tokens((4, 64))
    x[:, 0] = 258
    objective = learn.masked_language_modelling(mask_rate=1.0)
    seen = []

    def model(hidden):
        seen.append(np.asarray(hidden))
        return bigram(hidden)

    loss, _ = objective(model, {"tokens": x}, None)
    np.testing.assert_array_equal(seen[0][:, 0], 258)
    expected = [nats(seen[0][b, i], x[b, i]) for b in range(4) for i in range(1, 64)]
    np.testing.assert_allclose(loss, np.mean(expected), rtol=1e-5)
    first, second = (objective(bigram, {"tokens": x}, nnx.Rngs(seed))[0] for seed in (1, 2))
    assert first != second


def test_a_model_that_names_the_mask_gets_it():
    got = []

    def model(x, *, mask=None):
        got.append(mask)
        return jnp.zeros((2, 3))

    batch = {"tokens": tokens((2, 4)), "label": np.array([0, 1], np.int32)}
    kept = np.array([[1, 1, 1, 0], [1, 1, 1, 1]], np.float32)
    learn.classification()(model, batch, None)
    learn.classification()(model, batch | {"token_mask": jnp.asarray(kept)}, None)
    assert got[0] is None
    assert got[1].dtype == bool
    np.testing.assert_array_equal(got[1], kept > 0)


def test_a_classifier_is_no_model_of_language():
    with pytest.raises(ValueError, match=r"tokens \[2, 4\] need logits \[2, 4, 'vocabulary'\]"):
        learn.language_modelling()(lambda x: jnp.zeros((2, 3)), {"tokens": tokens((2, 4))}, None)


@pytest.mark.parametrize("rate", [0.0, 1.5])
def test_rates_out_of_range(rate):
    with pytest.raises(ValueError, match=r"mask_rate must be in \(0, 1\]"):
        learn.masked_language_modelling(mask_rate=rate)
