# SPDX-License-Identifier: Apache-2.0
"""LayerNorm, RMSNorm and GroupNorm are flax's and torch's; exact where the mean is large."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import layers

KINDS = {
    "LayerNorm": ((8,), {}),
    "LayerNorm, no scale": ((8,), {"use_scale": False}),
    "LayerNorm, bfloat16": ((8,), {"dtype": jnp.bfloat16}),
    "LayerNorm, other axes": ((8,), {"reduction_axes": (-2, -1)}),
    "RMSNorm": ((8,), {}),
    "RMSNorm, bfloat16": ((8,), {"dtype": jnp.bfloat16}),
    "RMSNorm, other axes": ((8,), {"reduction_axes": (-2, -1)}),
    "GroupNorm": ((8, 2), {}),
    "GroupNorm, 4 groups": ((8, 4), {}),
    "GroupNorm, group size": ((8, None, 2), {"use_bias": False}),
    "GroupNorm, bfloat16": ((8, 2), {"dtype": jnp.bfloat16}),
}
every = pytest.mark.parametrize("name", KINDS)


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(1, 2, shape), jnp.float32)


def pair(name):
    """Ours and flax's, with the same numbers."""
    args, kwargs = KINDS[name]
    kind = name.split(",")[0]
    made = [getattr(home, kind)(*args, **kwargs, rngs=nnx.Rngs(0)) for home in (layers, nnx)]
    for layer in made:
        for seed, attribute in enumerate(("scale", "bias")):
            if getattr(layer, attribute, None) is not None:
                getattr(layer, attribute)[...] = draw(8, seed=seed + 1)
    return made


def close(got, expected, tolerance=2e-5):
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(got / scale, expected / scale, atol=tolerance)


@pytest.mark.fast
@every
def test_numbers_gradients_and_state_are_flaxs(name):
    ours, theirs = pair(name)
    x = draw(2, 3, 4, 8)

    def values(layer):
        graphdef, state = nnx.split(layer)

        @jax.jit
        def run(state, x):
            def loss(state, x):
                y = nnx.merge(graphdef, state)(x)
                return (y.astype(jnp.float32) ** 3).sum(), y

            return jax.value_and_grad(loss, (0, 1), has_aux=True)(state, x)

        return run(state, x)

    (_, y), grads = values(ours)
    (_, expected), expected_grads = values(theirs)
    assert y.dtype == expected.dtype
    assert jax.tree.structure(nnx.state(ours)) == jax.tree.structure(nnx.state(theirs))
    tolerance = 2e-2 if "bfloat16" in name else 2e-5
    close(y, expected, tolerance)
    jax.tree.map(lambda a, b: close(a, b, tolerance), grads, expected_grads)


@pytest.mark.fast
def test_group_norm_takes_several_batch_axes():
    layer = layers.GroupNorm(8, 2, reduction_axes=(-3, -2, -1), rngs=nnx.Rngs(0))
    x = draw(2, 3, 4, 5, 8)
    close(layer(x), jax.vmap(layers.GroupNorm(8, 2, rngs=nnx.Rngs(0)))(x), 1e-6)


@pytest.mark.fast
@pytest.mark.parametrize("name", ["LayerNorm", "RMSNorm", "GroupNorm"])
def test_masks_are_flaxs(name):
    ours, theirs = pair(name)
    x = draw(2, 3, 8)
    mask = jnp.asarray(np.random.default_rng(1).random((2, 3, 8)) < 0.8)
    if name == "GroupNorm":
        mask = jnp.ones((2, 3, 8), bool).at[:, 1].set(False)
    close(ours(x, mask=mask), theirs(x, mask=mask))


@pytest.mark.fast
@pytest.mark.parametrize("name", ["LayerNorm", "GroupNorm", "GroupNorm, 4 groups"])
@pytest.mark.parametrize(("mean", "deviation"), [(1e4, 1.0), (-1e4, 0.1), (1.0, 1e-4), (0.0, 1e3)])
def test_large_means_and_small_deviations(name, mean, deviation):
    """LayerNorm loses nothing, GroupNorm the rounding of the mean; flax's variance is 0."""
    ours, theirs = pair(name)
    ours.epsilon = 1e-12
    x = jnp.asarray(np.random.default_rng(3).normal(mean, deviation, (2, 6, 5, 8)), jnp.float32)
    wide = np.asarray(x, np.float64).reshape(2, 30, -1, 4 if name == "GroupNorm" else 2)
    over = (1, 3)
    if name == "LayerNorm":
        wide, over = np.asarray(x, np.float64), (-1,)
    n = (wide - wide.mean(over, keepdims=True)) / np.sqrt(wide.var(over, keepdims=True) + 1e-12)
    n = n.reshape(x.shape)
    expected = n * np.asarray(ours.scale[...]) + np.asarray(ours.bias[...])
    rounding = 0 if name == "LayerNorm" else 4 * 2**-24 * abs(mean) / deviation
    close(jax.jit(ours.__call__)(x), expected, 1e-5 + rounding)
    if abs(mean) == 1e4:
        assert np.abs(theirs(x) - expected).max() > 1


@pytest.mark.fast
@pytest.mark.parametrize("name", ["LayerNorm", "RMSNorm", "GroupNorm"])
def test_bfloat16_has_float32_statistics(name):
    """The only error is the rounding of the result (2^-9), though 4096 squares are summed."""
    x = jnp.asarray(np.random.default_rng(5).normal(3, 1, (2, 64, 64)), jnp.bfloat16)
    x = x.reshape(2, 4096) if name != "GroupNorm" else x
    args = {"LayerNorm": (4096,), "RMSNorm": (4096,), "GroupNorm": (64, 1)}[name]
    layer = getattr(layers, name)(*args, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    wide = np.asarray(x, np.float64)
    over = tuple(range(1, x.ndim))
    if name == "RMSNorm":
        expected = wide / np.sqrt((wide**2).mean(over, keepdims=True))
    else:
        expected = (wide - wide.mean(over, keepdims=True)) / wide.std(over, keepdims=True)
    y = layer(x)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(y, np.float64), expected, rtol=2**-8, atol=1e-5)


@pytest.mark.fast
@pytest.mark.parametrize("name", ["LayerNorm", "RMSNorm", "GroupNorm"])
def test_constant_input_has_finite_values_and_gradients(name):
    ours, _ = pair(name)
    y, gradient = jax.value_and_grad(lambda x: (ours(x) ** 2).sum())(jnp.zeros((2, 3, 8)))
    assert np.isfinite(y)
    assert np.isfinite(gradient).all()


@pytest.mark.fast
def test_bad_arguments_are_named():
    rngs = nnx.Rngs(0)
    with pytest.raises(ValueError, match=r"LayerNorm .* \(\*batch, 8\). Got \(2, 7\)"):
        layers.LayerNorm(8, rngs=rngs)(jnp.ones((2, 7)))
    with pytest.raises(ValueError, match=r"RMSNorm .* \(\*batch, 8\). Got \(\)"):
        layers.RMSNorm(8, rngs=rngs)(jnp.ones(()))
    with pytest.raises(ValueError, match=r"GroupNorm .* \(batch, ..., 8\). Got \(8,\)"):
        layers.GroupNorm(8, 2, rngs=rngs)(jnp.ones((8,)))
    with pytest.raises(ValueError, match=r"does not divide"):
        layers.GroupNorm(8, 3, rngs=rngs)
    for layer in (layers.LayerNorm(8, rngs=rngs), layers.RMSNorm(8, rngs=rngs)):
        with pytest.raises(TypeError, match=r"floating-point input. Got int32"):
            layer(jnp.ones((2, 8), jnp.int32))


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["LayerNorm", "RMSNorm", "GroupNorm"])
def test_values_and_gradients_are_torchs(name):
    torch = pytest.importorskip("torch", reason="torch is the oracle; CI installs it")
    ours, _ = pair(name)
    last = name == "GroupNorm"
    theirs = {
        "LayerNorm": lambda: torch.nn.LayerNorm(8, eps=1e-6),
        "RMSNorm": lambda: torch.nn.RMSNorm(8, eps=1e-6),
        "GroupNorm": lambda: torch.nn.GroupNorm(2, 8, eps=1e-6),
    }[name]()
    theirs.weight.data = torch.tensor(np.asarray(ours.scale[...]))
    if name != "RMSNorm":
        theirs.bias.data = torch.tensor(np.asarray(ours.bias[...]))
    x = draw(2, 3, 5, 8)
    tx = torch.tensor(np.asarray(x), requires_grad=True)
    ty = theirs(tx.permute(0, 3, 1, 2)).permute(0, 2, 3, 1) if last else theirs(tx)
    (ty**3).sum().backward()

    graphdef, state = nnx.split(ours)

    def loss(state, x):
        y = nnx.merge(graphdef, state)(x)
        return (y**3).sum(), y

    (_, y), (ds, dx) = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(state, x)
    close(y, ty.detach().numpy())
    close(dx, tx.grad.numpy())
    close(ds["scale"][...], theirs.weight.grad.numpy())
    if name != "RMSNorm":
        close(ds["bias"][...], theirs.bias.grad.numpy())
