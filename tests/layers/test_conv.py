# SPDX-License-Identifier: Apache-2.0
"""Conv is nnx.Conv: state both ways, every option, every transform."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import ops
from efficient_layers.layers import Conv

pytestmark = pytest.mark.fast

OPTIONS = {
    "same": ((2, 6, 5, 4), (3, 3), {"strides": 2, "feature_group_count": 4}),
    "valid": ((2, 6, 5, 4), (3, 3), {"padding": "VALID"}),
    "circular": ((2, 6, 5, 4), (3, 3), {"padding": "CIRCULAR", "feature_group_count": 4}),
    "reflect": ((2, 6, 5, 4), (3, 3), {"padding": "REFLECT", "strides": (2, 1)}),
    "causal": ((2, 9, 4), 3, {"padding": "CAUSAL", "feature_group_count": 4}),
    "integer padding": ((2, 6, 5, 4), (3, 3), {"padding": 1}),
    "pairs": ((2, 6, 5, 4), (3, 3), {"padding": ((0, 1), (2, 1)), "feature_group_count": 4}),
    "kernel dilation": ((2, 9, 8, 4), (3, 3), {"kernel_dilation": 2, "feature_group_count": 4}),
    "input dilation": ((2, 4, 5, 4), (3, 3), {"input_dilation": 2, "padding": 1}),
    "1x1": ((2, 6, 5, 4), (1, 1), {"strides": 2}),
    "grouped": ((2, 6, 5, 4), (3, 3), {"feature_group_count": 2, "use_bias": False}),
    "3-D": ((1, 3, 4, 5, 4), (2, 3, 3), {"feature_group_count": 4}),
    "unbatched": ((6, 5, 4), (3, 3), {"feature_group_count": 4}),
    "two batch axes": ((2, 3, 6, 5, 4), (3, 3), {"strides": None}),
    "mask": ((2, 6, 5, 4), (3, 3), {"mask": jnp.tril(jnp.ones((3, 3, 4, 8)))}),
    "bfloat16": ((2, 6, 5, 4), (3, 3), {"dtype": jnp.bfloat16, "feature_group_count": 4}),
    "wider result": ((2, 6, 5, 4), (3, 3), {"preferred_element_type": jnp.float32}),
}


def pair(name):
    """(ours, flax's, an input), with the same random state."""
    shape, kernel, options = OPTIONS[name]
    kernel_layer = nnx.Conv(4, 8, kernel, rngs=nnx.Rngs(0), **options)
    ours = Conv(4, 8, kernel, rngs=nnx.Rngs(1), **options)
    nnx.update(ours, nnx.state(kernel_layer))
    return ours, kernel_layer, jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_gives_flaxs_numbers_and_dtypes(name):
    ours, theirs, x = pair(name)
    got, expected = jax.jit(lambda x: (ours(x), theirs(x)))(x)
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    tolerance = 0.03 if got.dtype == jnp.bfloat16 else 1e-5
    np.testing.assert_allclose(
        np.asarray(got, np.float32), np.asarray(expected, np.float32), atol=tolerance
    )


def test_state_restores_both_ways():
    ours = Conv(4, 8, (3, 3), rngs=nnx.Rngs(0))
    theirs = nnx.Conv(4, 8, (3, 3), rngs=nnx.Rngs(0))
    mine, other = nnx.state(ours), nnx.state(theirs)
    assert jax.tree.structure(mine) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, mine, other)
    nnx.update(theirs, mine)
    nnx.update(ours, other)


def pure(layer, x):
    """The layer as a function of its parameters and x."""
    graphdef, params = nnx.split(layer)
    return (lambda params, x: nnx.merge(graphdef, params)(x)), params, x


@pytest.mark.parametrize("name", ["same", "1x1", "grouped"])
def test_every_transform_gives_flaxs_numbers(name):
    ours, theirs, x = pair(name)

    def everything(layer):
        function, params, inputs = pure(layer, x[:1, :4, :4])

        def loss(params, x):
            return (function(params, x) ** 3).sum()

        stacked = jax.tree.map(lambda p: jnp.stack([p, 2 * p]), params)
        tangent = jax.tree.map(jnp.cos, params)
        return (
            jax.grad(loss)(params, inputs),
            jax.jvp(function, (params, inputs), (tangent, jnp.sin(inputs))),
            jax.jacfwd(function, argnums=1)(params, inputs),
            jax.hessian(loss, argnums=1)(params, inputs),
            jax.vmap(function, (None, 0))(params, jnp.stack([inputs, -inputs])),
            jax.vmap(jax.grad(loss), (0, None))(stacked, inputs),
        )

    got, expected = jax.jit(lambda: everything(ours))(), jax.jit(lambda: everything(theirs))()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4, rtol=1e-4), got, expected)


def test_an_empty_batch_passes_through():
    ours, _, x = pair("same")
    assert ours(x[:0]).shape == (0, 3, 3, 8)


def test_a_convolution_of_the_callers_own_is_used():
    seen = []

    def mine(*args, **kwargs):
        seen.append(kwargs["feature_group_count"])
        return jax.lax.conv_general_dilated(*args, **kwargs)

    Conv(4, 8, (3, 3), conv_general_dilated=mine, rngs=nnx.Rngs(0))(jnp.ones((1, 4, 4, 4)))
    assert seen == [1]


def test_the_fast_form_is_what_runs_on_a_cpu_and_the_reference_on_request():
    ours, _, x = pair("same")
    assert "trilinear" in str(jax.make_jaxpr(ours)(x))
    with ops.lowering("reference"):
        assert "trilinear" not in str(jax.make_jaxpr(ours)(x))


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (jnp.ones((2, 6, 5, 3)), ValueError, r"shape \(\*batch, h w, 4\). Got \(2, 6, 5, 3\)"),
        (jnp.ones((5, 4)), ValueError, r"Got \(5, 4\)"),
        (jnp.ones((2, 6, 5, 4), jnp.int32), TypeError, "floating-point input. Got int32"),
    ],
)
def test_a_wrong_input_is_said_in_words(x, error, message):
    with pytest.raises(error, match=message):
        Conv(4, 8, (3, 3), rngs=nnx.Rngs(0))(x)


@pytest.mark.parametrize(
    ("sizes", "groups", "message"),
    [((4, 8), 3, "3 groups and 4 input"), ((4, 7), 2, "2 groups and 7 out"), ((4, 8), 0, "Got 0")],
)
def test_groups_that_do_not_divide_are_an_error(sizes, groups, message):
    with pytest.raises(ValueError, match=message):
        Conv(*sizes, (3, 3), feature_group_count=groups, rngs=nnx.Rngs(0))
