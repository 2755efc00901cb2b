# SPDX-License-Identifier: Apache-2.0
"""StandardizedConv: timm's layers, and what standardised filters promise."""

import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import layers


def make(*args, **kwargs):
    layer = layers.StandardizedConv(*args, rngs=nnx.Rngs(0), **kwargs)
    draw = np.random.default_rng(0)
    layer.kernel[...] = jnp.asarray(draw.normal(0.3, 2, layer.kernel.shape), jnp.float32)
    if layer.gain is not None:
        layer.gain[...] = jnp.asarray(draw.normal(1, 0.3, layer.gain.shape), jnp.float32)
    return layer


@pytest.mark.fast
def test_filters_have_mean_0_and_variance_1_and_ignore_shift_and_scale():
    layer = make(4, 6, (3, 3))
    kernel = np.asarray(layer.standardized(), np.float64)
    np.testing.assert_allclose(kernel.mean((0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(kernel.var((0, 1, 2)), 1, atol=1e-5)
    layer.kernel[...] = layer.kernel[...] * 3 + 100
    np.testing.assert_allclose(layer.standardized(), kernel, atol=1e-4)


@pytest.mark.fast
def test_scaled_keeps_the_variance_behind_a_relu():
    """gamma = 1.7139 for relu (Brock et al. 2021, section 4): a deep relu stack stays at 1."""
    x = jnp.asarray(np.random.default_rng(1).normal(size=(8, 8, 8, 64)), jnp.float32)
    for seed in range(6):
        layer = layers.StandardizedConv(
            64, 64, (3, 3), padding="CIRCULAR", scaled=True, gamma=1.7139, rngs=nnx.Rngs(seed)
        )
        x = layer(jax.nn.relu(x) if seed else x / 1.7139)
        assert 0.75 < float(x.var()) < 1.3


@pytest.mark.fast
def test_the_kernel_is_standardised_before_it_is_rounded():
    """A mean of 1000 would leave bfloat16 weights no digits."""
    layer = make(4, 6, (3, 3), dtype=jnp.bfloat16)
    x = jnp.asarray(np.random.default_rng(2).normal(size=(1, 5, 5, 4)), jnp.float32)
    y = layer(x)
    layer.kernel[...] = layer.kernel[...] + 1000
    assert y.dtype == jnp.bfloat16
    shifted = np.asarray(layer(x), np.float32)
    np.testing.assert_allclose(np.asarray(y, np.float32), shifted, atol=0.15)


@pytest.mark.fast
def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"at least 2 weights. Got .* \(1, 1, 1, 4\)"):
        layers.StandardizedConv(4, 4, (1, 1), feature_group_count=4, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"StandardizedConv .* \(\*batch, h w, 4\). Got \(5, 3\)"):
        make(4, 6, (3, 3))(jnp.ones((5, 3)))
    with pytest.raises(TypeError, match="StandardizedConv expects a floating-point"):
        make(4, 6, (3, 3))(jnp.ones((1, 5, 5, 4), jnp.int32))


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("scaled", [False, True])
def test_values_and_gradients_are_timms(scaled, groups):
    torch = pytest.importorskip("torch", reason="torch is the oracle; CI installs it")
    # torchvision's compiled operators are absent beside a CPU-only torch: nothing to register.
    name = "torchvision._meta_registrations"
    sys.modules.setdefault(name, types.ModuleType(name))
    timm = pytest.importorskip("timm.layers", reason="timm is the oracle; CI installs it")
    ours = make(4, 6, (3, 3), 2, padding=1, scaled=scaled, gamma=1.5, feature_group_count=groups)
    settings = {"stride": 2, "groups": groups, "bias": True}
    if scaled:
        theirs = timm.ScaledStdConv2d(4, 6, 3, gamma=1.5, **settings)
        theirs.gain.data = torch.tensor(np.asarray(ours.gain[...])).reshape(6, 1, 1, 1)
    else:
        theirs = timm.StdConv2d(4, 6, 3, **settings)
    theirs.weight.data = torch.tensor(np.asarray(ours.kernel[...]).transpose(3, 2, 0, 1))
    theirs.bias.data.zero_()
    x = np.random.default_rng(3).normal(size=(2, 5, 7, 4)).astype(np.float32)
    tx = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    ty = theirs(tx)
    (ty**3).sum().backward()

    graphdef, state = nnx.split(ours)

    def loss(state, x):
        y = nnx.merge(graphdef, state)(x)
        return (y**3).sum(), y

    (_, y), (ds, dx) = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(state, x)

    def close(got, expected):
        expected = expected.detach().numpy()
        np.testing.assert_allclose(got, expected, atol=3e-5 * max(1.0, np.abs(expected).max()))

    close(y, ty.permute(0, 2, 3, 1))
    close(dx, tx.grad.permute(0, 2, 3, 1))
    close(ds["kernel"][...], theirs.weight.grad.permute(2, 3, 1, 0))
    if scaled:
        close(ds["gain"][...], theirs.gain.grad.reshape(6))
