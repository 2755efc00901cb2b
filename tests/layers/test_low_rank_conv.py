# SPDX-License-Identifier: Apache-2.0
"""Low-rank convolutions: exact at full rank, error falling with the rank, settings kept, errors."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import layers
from efficient_layers.ops import kernel_factors
from tests.layers.cases.low_rank_conv import kernel_of

pytestmark = pytest.mark.fast
LAYERS = (layers.FactorizedConv, layers.SpatialSeparableConv, layers.TuckerConv, layers.CPConv)
FULL = {
    layers.FactorizedConv: 6,
    layers.SpatialSeparableConv: 12,
    layers.TuckerConv: (4, 6),
    layers.CPConv: 24,
}
# Rising sequences for a kernel of 3 x 2, 4 -> 6.
RISING = {
    layers.FactorizedConv: [1, 2, 4, 6],
    layers.SpatialSeparableConv: [1, 2, 4, 8, 12],
    layers.TuckerConv: [(1, 1), (2, 1), (2, 3), (3, 5), (4, 6)],
    layers.CPConv: [1, 2, 4, 8, 12, 24],
}


def conv(**options):
    settings = {"kernel_size": (3, 2), "rngs": nnx.Rngs(0), **options}
    return layers.Conv(4, 6, **settings)


def new(layer, rank, kernel_size=(3, 2)):
    name = "ranks" if layer is layers.TuckerConv else "rank"
    return layer(4, 6, kernel_size, **{name: rank}, rngs=nnx.Rngs(0))


@pytest.mark.slow
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(
    "options",
    [
        {"strides": 2, "padding": "VALID", "use_bias": False},
        {"padding": [(2, 0), (1, 3)], "kernel_dilation": (1, 2)},
        {"strides": 3, "padding": "SAME"},
        {"padding": "CIRCULAR"},
    ],
)
def test_at_full_rank_it_is_the_convolution(layer, options):
    dense = conv(**options)
    if dense.bias is not None:
        dense.bias[...] = jnp.arange(6.0)
    low = layer.from_conv(dense, FULL[layer])
    x = jax.random.normal(jax.random.key(0), (2, 8, 9, 4))
    both = jax.jit(lambda x: (low(x), dense(x)))
    np.testing.assert_allclose(*both(x), atol=1e-5)


@pytest.mark.parametrize("layer", LAYERS)
def test_the_error_falls_with_the_rank(layer):
    dense = conv()
    errors = [
        np.linalg.norm(kernel_of(layer.from_conv(dense, rank)) - dense.kernel[...])
        for rank in RISING[layer]
    ]
    assert all(after < before for before, after in itertools.pairwise(errors))
    assert errors[-1] < 1e-5
    assert errors[0] > 0.1


def test_spatial_factors_reach_the_bound_of_eckart_and_young():
    kernel = np.random.default_rng(0).normal(size=(3, 2, 4, 6))
    factors = kernel_factors.spatial_factors(kernel, 5)
    fitted = np.einsum("yir,xro->yxio", factors.vertical[:, 0], factors.horizontal[0])
    values = np.linalg.svd(kernel.transpose(0, 2, 1, 3).reshape(12, 12), compute_uv=False)
    np.testing.assert_allclose(
        np.linalg.norm(kernel - fitted), np.sqrt((values[5:] ** 2).sum()), rtol=1e-10
    )


@pytest.mark.parametrize("layer", LAYERS)
def test_a_kernel_of_low_rank_is_found_again(layer):
    draw = np.random.default_rng(0)
    planted = {
        layers.FactorizedConv: ("yxir,ro->yxio", [(3, 2, 4, 3), (3, 6)], 3),
        layers.SpatialSeparableConv: ("yir,xro->yxio", [(3, 4, 3), (2, 3, 6)], 3),
        layers.TuckerConv: ("ir,yxrs,so->yxio", [(4, 2), (3, 2, 2, 3), (3, 6)], (2, 3)),
        layers.CPConv: ("yr,xr,ir,or->yxio", [(3, 3), (2, 3), (4, 3), (6, 3)], 3),
    }
    spec, shapes, rank = planted[layer]
    kernel = np.einsum(spec, *(draw.normal(size=shape) for shape in shapes))
    dense = conv()
    dense.kernel[...] = jnp.asarray(kernel, jnp.float32)
    fitted = kernel_of(layer.from_conv(dense, rank))
    np.testing.assert_allclose(fitted, kernel, atol=1e-5 * np.abs(kernel).max())


@pytest.mark.parametrize("layer", LAYERS)
def test_from_conv_repeats_keeps_dtypes_and_leaves_the_convolution_alone(layer):
    dense = conv(param_dtype=jnp.bfloat16, dtype=jnp.bfloat16)
    before = np.array(dense.kernel[...])
    first, again = (layer.from_conv(dense, FULL[layer]) for _ in range(2))
    for name in layer.parts:
        a, b = getattr(first, name).kernel[...], getattr(again, name).kernel[...]
        assert a.dtype == jnp.bfloat16
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(dense.kernel[...], before)
    assert first(jnp.ones((1, 4, 4, 4), jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("make", [new, lambda layer, rank: layer.from_conv(conv(), rank)])
def test_a_rank_that_the_matrix_cannot_have_is_an_error(layer, make):
    excess = (5, 6) if layer is layers.TuckerConv else FULL[layer] + 1
    zero = (4, 0) if layer is layers.TuckerConv else 0
    for rank, got in ((excess, "Got (5|7|13|25)"), (zero, "Got 0")):
        with pytest.raises(ValueError, match=f"rank from 1 to .*{got}"):
            make(layer, rank)


@pytest.mark.parametrize("layer", LAYERS)
def test_what_is_no_plain_convolution_is_an_error(layer):
    rank = (1, 1) if layer is layers.TuckerConv else 1
    with pytest.raises(TypeError, match=r"expects an nnx.Conv. Got Linear"):
        layer.from_conv(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), rank)
    with pytest.raises(ValueError, match=r"without groups.* 2 groups"):
        layer.from_conv(conv(feature_group_count=2), rank)
    with pytest.raises(ValueError, match=r"two-dimensional.*\(3, 4, 6\)"):
        layer.from_conv(conv(kernel_size=(3,)), rank)
    with pytest.raises(ValueError, match="two dimensions"):
        new(layer, rank, kernel_size=(3,))


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("shape", [(1, 4, 4, 5), (4, 4)])
def test_an_input_of_another_shape_is_an_error(layer, shape):
    rank = (1, 1) if layer is layers.TuckerConv else 1
    with pytest.raises(ValueError, match=r"Got \("):
        jax.eval_shape(lambda: new(layer, rank)(jnp.ones(shape)))
