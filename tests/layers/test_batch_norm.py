# SPDX-License-Identifier: Apache-2.0
"""BatchNorm is nnx.BatchNorm; with `unbiased_running_var` its statistics are torch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers.layers import BatchNorm

OPTIONS = {
    "plain": {},
    "momentum": {"momentum": 0.9, "epsilon": 1e-3},
    "no scale": {"use_scale": False},
    "no bias": {"use_bias": False},
    "slow variance": {"use_fast_variance": False},
    "channels first": {"axis": 1},
    "bfloat16": {"dtype": jnp.bfloat16},
}


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(1, 2, shape), jnp.float32)


def layers(**options):
    made = [kind(6, rngs=nnx.Rngs(0), **options) for kind in (BatchNorm, nnx.BatchNorm)]
    for layer in made:
        for seed, param in enumerate((layer.scale, layer.bias)):
            if param is not None:
                param[...] = draw(6, seed=seed + 1)
    return made


def equal(got, expected, tolerance=2e-5):
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(
        np.asarray(got, np.float32), np.asarray(expected, np.float32), atol=tolerance
    )


@pytest.mark.fast
@pytest.mark.parametrize("name", OPTIONS)
def test_output_and_state_are_flaxs(name):
    ours, theirs = layers(**OPTIONS[name])
    x = draw(4, 6, 5, 6)
    tolerance = 0.1 if name == "bfloat16" else 2e-5
    for _ in range(2):
        equal(ours(x), theirs(x), tolerance)
    jax.tree.map(equal, nnx.state(ours), nnx.state(theirs))
    ours.eval()
    theirs.eval()
    equal(ours(x), theirs(x), tolerance)
    jax.tree.map(equal, nnx.state(ours), nnx.state(theirs))


@pytest.mark.fast
def test_mask_and_call_time_flag_are_flaxs():
    ours, theirs = layers()
    x, mask = draw(4, 3, 6), jnp.asarray(np.random.default_rng(1).random((4, 3, 1)) < 0.5)
    equal(ours(x, mask=mask), theirs(x, mask=mask))
    equal(ours(x, use_running_average=True), theirs(x, use_running_average=True))
    equal(ours.var[...], theirs.var[...])


@pytest.mark.fast
def test_running_statistics_keep_the_dtype_they_are_stored_in():
    layer, _ = layers()
    nnx.update(layer, jax.tree.map(lambda a: a.astype(jnp.bfloat16), nnx.state(layer)))
    layer(draw(4, 3, 6))
    assert (layer.mean.dtype, layer.var.dtype) == (jnp.bfloat16, jnp.bfloat16)


@pytest.mark.fast
def test_gradients_are_flaxs_under_jit():
    x = draw(4, 5, 5, 6)

    def gradients(layer):
        graphdef, params, rest = nnx.split(layer, nnx.Param, ...)

        @jax.jit
        def gradient(params, rest, x):
            def loss(params, x):
                layer = nnx.merge(graphdef, params, rest, copy=True)
                return (layer(x) ** 3).sum(), nnx.state(layer, nnx.BatchStat)

            return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x)

        return gradient(params, rest, x)

    ours, theirs = layers()
    got, expected = gradients(ours), gradients(theirs)
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-3), got, expected)


@pytest.mark.fast
def test_unbiased_running_variance_over_devices_counts_all_of_them():
    x = draw(4, 3, 6)
    whole = BatchNorm(6, unbiased_running_var=True, rngs=nnx.Rngs(0))
    whole(x)
    graphdef, state = nnx.split(
        BatchNorm(6, unbiased_running_var=True, axis_name="b", rngs=nnx.Rngs(0))
    )

    def part(x):
        layer = nnx.merge(graphdef, state, copy=True)
        layer(x)
        return layer.var[...]

    equal(jax.vmap(part, axis_name="b")(x)[0], whole.var[...])


@pytest.mark.fast
@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (jnp.ones((2, 5)), ValueError, r"6 channels on axis -1. Got .* \(2, 5\)"),
        (jnp.ones((2, 6), jnp.int32), TypeError, "Got int32"),
    ],
)
def test_a_wrong_input_is_said_in_words(x, error, message):
    with pytest.raises(error, match=message):
        BatchNorm(6, rngs=nnx.Rngs(0))(x)


@pytest.mark.oracle
def test_three_steps_leave_torchs_running_statistics():
    torch = pytest.importorskip("torch", reason="torch is the oracle; CI installs it")
    ours = BatchNorm(6, momentum=0.9, unbiased_running_var=True, rngs=nnx.Rngs(0))
    theirs = torch.nn.BatchNorm2d(6, momentum=0.1)
    for seed in range(3):
        x = draw(2, 3, 2, 6, seed=seed)
        expected = theirs(torch.tensor(np.asarray(x)).permute(0, 3, 1, 2))
        equal(ours(x), jnp.asarray(expected.detach().permute(0, 2, 3, 1).numpy()))
    np.testing.assert_allclose(ours.mean[...], theirs.running_mean, atol=1e-5)
    np.testing.assert_allclose(ours.var[...], theirs.running_var, atol=1e-5)
