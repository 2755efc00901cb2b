# SPDX-License-Identifier: Apache-2.0
"""DeltaNet: chunked = recurrent = quadratic, a memory that replaces, equal keys, decoding."""

import jax
import numpy as np
import pytest
from flax import nnx

from efficient_layers import layers
from efficient_layers.ops import delta_rule as op
from tests.layers.decoding import check_decoding, check_no_leak, check_step_is_constant


def sequence(n):
    draw = np.random.default_rng(0)
    q, k = draw.normal(size=(2, 2, 3, n, 5)).astype(np.float32)
    v = draw.normal(size=(2, 3, n, 4)).astype(np.float32)
    rate = draw.uniform(size=(2, 3, n)).astype(np.float32)
    return q, k / np.linalg.norm(k, axis=-1, keepdims=True), v, rate


@pytest.mark.fast
@pytest.mark.parametrize(("n", "chunk"), [(1, 4), (13, 4), (9, 8)])
def test_the_three_forms_agree(n, chunk):
    arrays = sequence(n)
    quadratic = op.quadratic_delta_rule(*arrays)
    chunked, _ = jax.jit(lambda *a: op.delta_rule(*a, chunk=chunk))(*arrays)
    np.testing.assert_allclose(chunked, quadratic, atol=5e-6)
    np.testing.assert_allclose(op.recurrent_delta_rule(*arrays), quadratic, atol=5e-6)


@pytest.mark.fast
def test_at_rate_one_the_memory_answers_with_the_last_value_under_a_key():
    _, _, v, _ = sequence(6)
    k = np.zeros((2, 3, 6, 5), np.float32)
    k[..., np.arange(6), [0, 1, 0, 2, 1, 0]] = 1
    rate = np.ones((2, 3, 6), np.float32)
    _, state = op.delta_rule(k, k, v, rate, chunk=4)
    for key, last in ((0, 5), (1, 4), (2, 3)):
        np.testing.assert_allclose(state[..., key, :], v[..., last, :], atol=1e-6)


@pytest.mark.slow
def test_equal_keys_stay_exact():
    """A chunk of 64 equal keys: powers of its triangular matrix reach 1e18."""
    q, _, v, _ = sequence(64)
    k = np.zeros((2, 3, 64, 5), np.float32)
    k[..., 0] = 1
    rate = np.full((2, 3, 64), 0.9, np.float32)
    chunked, _ = op.delta_rule(q, k, v, rate)
    np.testing.assert_allclose(chunked, op.recurrent_delta_rule(q, k, v, rate), atol=1e-5)


@pytest.mark.fast
def test_the_inverse_is_numpys():
    a = np.tril(np.random.default_rng(0).normal(size=(2, 3, 8, 8)), -1).astype(np.float32)
    expected = np.linalg.inv(np.eye(8) + a.astype(np.float64))
    scale = np.abs(expected).max()
    np.testing.assert_allclose(op.unit_lower_inverse(a) / scale, expected / scale, atol=1e-5)


def test_nothing_leaks_and_decoding_is_the_whole():
    layer = layers.DeltaNet(6, 2, chunk_size=4, rngs=nnx.Rngs(0))
    check_no_leak(layer, 10)
    check_decoding(layer, 9)
    check_step_is_constant(layer)


@pytest.mark.fast
def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"chunk_size a power of two. Got 12"):
        layers.DeltaNet(6, 2, chunk_size=12, rngs=nnx.Rngs(0))
