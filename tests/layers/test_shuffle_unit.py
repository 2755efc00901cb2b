# SPDX-License-Identifier: Apache-2.0
"""channel_shuffle against an index loop and torch; ShuffleUnit: its errors and its parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import layers
from efficient_layers.ops import channel_shuffle


@pytest.mark.fast
@pytest.mark.parametrize(("channels", "groups"), [(6, 2), (12, 3), (5, 5), (4, 1)])
def test_channel_shuffle_deals_the_groups_out_and_inverts(channels, groups):
    x = np.random.default_rng(0).normal(size=(2, 3, channels)).astype(np.float32)
    y = np.asarray(channel_shuffle(jnp.asarray(x), groups))
    width = channels // groups
    for g in range(groups):
        for j in range(width):
            np.testing.assert_array_equal(y[..., j * groups + g], x[..., g * width + j])
    np.testing.assert_array_equal(channel_shuffle(jnp.asarray(y), width), x)


@pytest.mark.fast
@pytest.mark.parametrize(("shape", "groups"), [((2, 5), 2), ((2, 4), 0), ((), 1)])
def test_channel_shuffle_says_what_does_not_divide(shape, groups):
    with pytest.raises(ValueError, match=rf"divide the channels.*Got {groups} groups"):
        channel_shuffle(jnp.ones(shape), groups)


@pytest.mark.oracle
def test_channel_shuffle_is_torchs():
    torch = pytest.importorskip("torch", reason="torch is the oracle; CI installs it")
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 12)).astype(np.float32)
    theirs = torch.nn.functional.channel_shuffle(torch.tensor(x.transpose(0, 3, 1, 2)), 3)
    y = channel_shuffle(jnp.asarray(x), 3)
    np.testing.assert_array_equal(y, theirs.numpy().transpose(0, 2, 3, 1))


@pytest.mark.slow
@pytest.mark.fast
def test_half_of_the_input_passes_unchanged():
    unit = layers.ShuffleUnit(8, 8, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (1, 3, 3, 8))
    out: dict[str, jax.Array] = {}
    y = unit(x, out=out)
    np.testing.assert_array_equal(y[..., 0::2], x[..., :4])
    np.testing.assert_array_equal(y[..., 1::2], out["project"])
    assert list(out) == ["shortcut", "expand", "depthwise", "project"]


@pytest.mark.fast
def test_a_passing_half_takes_the_dtype_of_the_other():
    unit = layers.ShuffleUnit(8, 8, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert unit(jnp.ones((1, 3, 3, 8))).dtype == jnp.bfloat16


@pytest.mark.fast
@pytest.mark.parametrize(
    ("sizes", "strides", "message"),
    [
        ((8, 7), 2, "even number of out_features.*out_features=7"),
        ((0, 8), 2, "Got in_features=0"),
        ((8, 12), 1, "in_features = out_features. Got 8, 12 and strides=1"),
        ((8, 8), 0, "strides=0"),
    ],
)
def test_sizes_that_do_not_fit_are_errors(sizes, strides, message):
    with pytest.raises(ValueError, match=message):
        layers.ShuffleUnit(*sizes, strides=strides, rngs=nnx.Rngs(0))


@pytest.mark.fast
@pytest.mark.parametrize("shape", [(1, 4, 4, 6), (4, 8)])
def test_an_input_of_another_shape_is_an_error(shape):
    unit = layers.ShuffleUnit(8, 8, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"\(\*batch, h, w, 8\). Got \("):
        unit(jnp.ones(shape))
    with pytest.raises(TypeError, match="int32"):
        unit(jnp.ones((1, 4, 4, 8), jnp.int32))
