# SPDX-License-Identifier: Apache-2.0
"""RoPE, ALiBi and T5's bias used alone: formulas, published numbers, limits."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import layers
from efficient_layers.layers import relative_bias
from efficient_layers.ops import position_bias, rotary
from tests.layers.numpy_attention import t5_bucket, turned

pytestmark = pytest.mark.fast
X = np.random.default_rng(0).normal(size=(2, 5, 3, 8)).astype(np.float32)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_rope_turns_pairs_as_complex_numbers(interleaved, fraction):
    rope = layers.RoPE(base=50.0, fraction=fraction, interleaved=interleaved)
    y = np.asarray(rope.rotate(X))
    expected = [[[turned(rope, h, i) for h in t] for i, t in enumerate(b)] for b in X]
    np.testing.assert_allclose(y, expected, atol=1e-5)
    positions = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
    y = jax.jit(rope.rotate)(X, positions)
    for (b, i), position in np.ndenumerate(positions):
        expected = [turned(rope, head, position) for head in X[b, i]]
        np.testing.assert_allclose(y[b, i], expected, atol=1e-5)


def test_scores_depend_on_the_distance_alone():
    rope = layers.RoPE()
    places = np.arange(5)
    near, far = rope.rotate(X, places), rope.rotate(X, places + 1000)
    scores = [np.einsum("bnhd,bmhd->bhnm", a, a) for a in (near, far)]
    np.testing.assert_allclose(*scores, atol=2e-3)  # angles of 1,000 radians in float32


def test_rope_in_bfloat16_computes_its_angles_in_float32():
    y = layers.RoPE().rotate(jnp.asarray(X, jnp.bfloat16), jnp.arange(5) + 4000)
    assert y.dtype == jnp.bfloat16
    expected = layers.RoPE().rotate(X, jnp.arange(5) + 4000)
    np.testing.assert_allclose(np.asarray(y, np.float32), expected, atol=3e-2)


def test_scalings_of_rope():
    """linear: position 6 of factor 3 is position 2. ntk: the slowest pair as linear, the first
    as unscaled."""
    plain = layers.RoPE().frequencies(8)
    linear = layers.RoPE(scaling="linear", factor=3).frequencies(8)
    ntk = layers.RoPE(scaling="ntk", factor=3).frequencies(8)
    np.testing.assert_allclose(linear, plain / 3)
    np.testing.assert_allclose(ntk[[0, -1]], [plain[0], plain[-1] / 3])


def test_positions_beyond_the_limit():
    rope = layers.RoPE(max_length=4)
    with pytest.raises(ValueError, match=r"below max_length=4. Got 4. Raise max_length"):
        rope.rotate(X)
    with pytest.raises(ValueError, match=r"below max_length=4. Got 8"):
        rope.rotate(X, np.arange(4, 9))
    y = jax.jit(rope.rotate)(X, np.array([0, 1, 2, 3, 4]))  # not known inside jit
    assert np.isnan(y[:, 4]).all()
    assert np.isfinite(y[:, :4]).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base": 0}, "base > 0"),
        ({"fraction": 1.5}, r"fraction in \(0, 1\]"),
        ({"scaling": "yarn", "factor": 2}, "'linear', 'ntk' or None. Got 'yarn'"),
        ({"factor": 2}, "factor above 1 with a scaling"),
        ({"scaling": "ntk"}, "factor above 1 with a scaling"),
        ({"max_length": 0}, "max_length of at least 1"),
    ],
)
def test_bad_settings_of_rope(settings, message):
    with pytest.raises(ValueError, match=message):
        layers.RoPE(**settings)


def test_positions_of_the_wrong_shape():
    with pytest.raises(ValueError, match=r"shape \(5,\) or \(2, 5\). Got \(4,\)"):
        layers.RoPE().rotate(X, np.arange(4))


def test_alibi_slopes_of_the_paper():
    """Section 3: 8 heads 1/2^1 ... 1/2^8; 16 heads from 1/2^0.5 on, ratio 1/2^0.5."""
    np.testing.assert_allclose(layers.ALiBi().slopes(8), 0.5 ** np.arange(1, 9))
    np.testing.assert_allclose(layers.ALiBi().slopes(16), 0.5 ** (np.arange(1, 17) / 2))
    bias = layers.ALiBi().bias(1, 3, 4)
    expected = -np.abs(np.arange(3)[:, None] - np.arange(4)) / 256
    np.testing.assert_allclose(bias[0], expected)


@pytest.mark.parametrize(("buckets", "longest"), [(32, 128), (8, 9), (6, 40)])
@pytest.mark.parametrize("both", [False, True])
def test_buckets_follow_the_formula(buckets, longest, both):
    distances = np.arange(-150, 151)
    settings = {"buckets": buckets, "max_distance": longest, "bidirectional": both}
    got = position_bias.t5_bucket(jnp.asarray(distances), **settings)
    assert got.tolist() == [t5_bucket(d, buckets, longest, both) for d in distances]


def test_the_biases_numbers_at_any_positions():
    module = layers.RelativeBias(3, buckets=8, max_distance=6, rngs=nnx.Rngs(0))
    spread = jax.jit(lambda offset: module.bias(4, 9, query_offset=offset))(5)
    np.testing.assert_array_equal(spread, module.between(jnp.arange(5, 9), jnp.arange(9)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"buckets": 2}, "at least 4 buckets, a multiple of 2"),
        ({"buckets": 7}, "a multiple of 2"),
        ({"max_distance": 8}, "max_distance above 8"),
    ],
)
def test_bad_settings_of_the_relative_bias(settings, message):
    with pytest.raises(ValueError, match=message):
        layers.RelativeBias(2, **settings, rngs=nnx.Rngs(0))
    module = layers.RelativeBias(2, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"\(\*batch, 2, queries, keys\). Got \(3, 5, 5\)"):
        module(jnp.ones((3, 5, 5)))


@pytest.mark.parametrize(
    "module", [position_bias, rotary, relative_bias, layers.RoPE, layers.ALiBi], ids=str
)
def test_examples_in_docstrings(module):
    runner = doctest.DocTestRunner()
    scope = dict(vars(module))
    for example in doctest.DocTestFinder().find(module, "module", globs=scope):
        assert runner.run(example).failed == 0
