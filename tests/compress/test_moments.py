# SPDX-License-Identifier: Apache-2.0
"""Second moments of inputs against NumPy's, of linear layers and of patches of convolutions."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import layers
from efficient_layers.compress.moments import input_means, input_moments, patches

DRAW = np.random.default_rng(0)
IMAGES = [DRAW.normal(size=(2, 7, 6, 3)).astype(np.float32) for _ in range(2)]
SETTINGS = [
    {"kernel_size": (3, 2), "padding": "SAME", "strides": 2},
    {"kernel_size": (3, 3), "padding": "VALID", "kernel_dilation": (1, 2)},
    {"kernel_size": (2, 3), "padding": ((1, 0), (2, 1)), "strides": (1, 3)},
    {"kernel_size": (3, 3), "padding": "CIRCULAR"},
    {"kernel_size": (3, 2), "padding": "REFLECT"},
    {"kernel_size": (1, 1), "padding": 1},
    {"kernel_size": (3, 3), "padding": "SAME_LOWER", "strides": 2},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_patches_times_the_kernel_are_the_convolution(settings):
    conv = nnx.Conv(3, 4, **settings, rngs=nnx.Rngs(0))
    x = jnp.asarray(IMAGES[0])
    got = patches(conv, x) @ conv.kernel[...].reshape(-1, 4) + conv.bias[...]
    np.testing.assert_allclose(got, conv(x), atol=1e-5)


def test_patches_of_a_causal_convolution():
    conv = nnx.Conv(3, 4, (3,), padding="CAUSAL", kernel_dilation=2, rngs=nnx.Rngs(0))
    x = jnp.asarray(IMAGES[0][:, :, 0])
    np.testing.assert_allclose(
        patches(conv, x) @ conv.kernel[...].reshape(-1, 4), conv(x), atol=1e-5
    )


class Net(nnx.Module):
    """A convolution, a grouped one, a linear layer called twice, one that is not called."""

    def __init__(self, rngs: nnx.Rngs):
        self.conv = layers.Conv(3, 4, (2, 2), padding="VALID", rngs=rngs)
        self.grouped = layers.Conv(4, 4, (3, 3), feature_group_count=2, rngs=rngs)
        self.linear = nnx.Linear(4, 4, rngs=rngs)
        self.idle = nnx.Linear(4, 4, rngs=rngs)

    def __call__(self, x):
        return self.linear(self.linear(self.grouped(self.conv(x))))


@pytest.mark.parametrize("transform", [lambda f: f, jax.checkpoint])
def test_moments_over_calls_and_batches(transform):
    net = Net(nnx.Rngs(0))
    found = input_moments(
        net,
        ["conv", "grouped", "linear", "idle"],
        ((x, 0) for x in IMAGES),
        loss=lambda model, batch: transform(lambda x: model(x).sum())(batch[0]),
    )
    assert list(found) == ["grouped", "conv", "linear"]
    assert found["grouped"] is None
    rows = [
        x[n, i : i + 2, j : j + 2].ravel()
        for x in IMAGES
        for n, i, j in itertools.product(range(2), range(6), range(5))
    ]
    rows = np.asarray(rows, np.float64)
    assert found["conv"].count == len(rows) == 120
    assert found["conv"].total.dtype == np.float64
    np.testing.assert_allclose(found["conv"].total, rows.T @ rows, rtol=1e-5, atol=1e-4)
    total = np.zeros((4, 4))
    for x in IMAGES:
        inner = net.grouped(net.conv(x))
        for seen in (inner, net.linear(inner)):
            flat = np.asarray(seen, np.float64).reshape(-1, 4)
            total += flat.T @ flat
    assert found["linear"].count == 240
    np.testing.assert_allclose(found["linear"].total, total, rtol=1e-5, atol=1e-4)


def test_moments_and_means_of_groups_give_those_of_the_outputs():
    conv = layers.Conv(
        6, 4, (3, 2), strides=2, feature_group_count=2, use_bias=False, rngs=nnx.Rngs(0)
    )
    net, data = nnx.Sequential(conv), [np.concatenate([x, x**2], -1) for x in IMAGES]
    moments = input_moments(net, ["layers/0"], data, grouped=True)["layers/0"]
    assert moments.total.shape == (2, 18, 18)
    means = input_means(net, ["layers/0"], data)["layers/0"]
    kernel = np.asarray(conv.kernel[...], np.float64).reshape(18, 2, 2).swapaxes(0, 1)
    y = np.concatenate([np.asarray(conv(x), np.float64).reshape(-1, 4) for x in data])
    assert moments.count == len(y)
    squares = np.einsum("gdo,gde,geo->go", kernel, moments.total, kernel).ravel()
    np.testing.assert_allclose(squares, np.square(y).sum(0), rtol=1e-5)
    np.testing.assert_allclose(np.einsum("gd,gdo->go", means, kernel).ravel(), y.mean(0), atol=1e-6)


def test_means_of_a_linear_layer():
    net, data = nnx.Sequential(nnx.Linear(3, 2, rngs=nnx.Rngs(0))), IMAGES
    expected = np.concatenate(data).reshape(-1, 3).mean(0)
    found = input_means(net, ["layers/0"], data)
    np.testing.assert_allclose(found["layers/0"], expected, atol=1e-6)


def test_bad_data():
    net = Net(nnx.Rngs(0))
    with pytest.raises(ValueError, match="at least one batch"):
        input_moments(net, ["conv"], [])
    with pytest.raises(ValueError, match="NaN or inf into conv"):
        input_moments(net, ["conv"], [IMAGES[0] * np.nan])
    with pytest.raises(ValueError, match="input of shape") as caught:
        input_moments(net, ["conv"], [IMAGES[0][..., :2]])
    assert "batch 0 of data, of shapes (2, 7, 6, 2)" in caught.value.__notes__[-1]
