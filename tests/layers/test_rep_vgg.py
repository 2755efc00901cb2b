# SPDX-License-Identifier: Apache-2.0
"""RepVGGBlock: re-parameterisation is exact and leaves the block alone; errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import layers, measure
from efficient_layers.ops.fold_batch_norm import fold_batch_norm
from tests.layers import numpy_layers
from tests.layers.case import randomised


def numbers(module):
    return jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(module)))


@pytest.mark.slow
@pytest.mark.fast
@pytest.mark.parametrize(
    ("sizes", "options"),
    [
        ((8, 8), {"feature_group_count": 4}),
        ((8, 12), {"feature_group_count": 2}),
        ((8, 12, 5, 2), {"act": None}),
        ((8, 8, 1), {"epsilon": 1e-3}),
    ],
)
def test_one_convolution_computes_what_the_branches_do(sizes, options):
    block = randomised(layers.RepVGGBlock(*sizes, **options, rngs=nnx.Rngs(0)))
    before = numbers(block)
    plain = block.reparameterise()
    jax.tree.map(np.testing.assert_array_equal, numbers(block), before)
    assert block.conv is None
    assert (plain.conv_kxk, plain.conv_1x1, plain.identity) == (None, None, None)

    x = jax.random.normal(jax.random.key(1), (2, 6, 7, 8))
    block.eval()
    expected = np.asarray(jax.jit(lambda x: block(x))(x))
    y = jax.jit(lambda x: plain(x))(x)
    np.testing.assert_allclose(y / expected.max(), expected / expected.max(), atol=1e-5)


@pytest.mark.fast
def test_the_plain_block_has_only_its_convolution():
    block = layers.RepVGGBlock(8, 8, rngs=nnx.Rngs(0))
    plain = block.reparameterise()
    x = jnp.ones((1, 4, 5, 8))
    assert measure.cost(plain, x).params == 9 * 64 + 8
    assert measure.cost(block, x).macs - measure.cost(plain, x).macs == 4 * 5 * 64
    again = plain.reparameterise()
    assert again is not plain
    np.testing.assert_array_equal(again(x), plain(x))
    for module, names in ((block, ["conv_kxk", "conv_1x1", "identity"]), (plain, ["conv"])):
        out: dict[str, jax.Array] = {}
        module(x, out=out)
        assert list(out) == names


@pytest.mark.fast
def test_dtypes_stay():
    block = layers.RepVGGBlock(8, 8, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    plain = block.reparameterise()
    assert plain.conv.kernel[...].dtype == jnp.bfloat16
    assert plain(jnp.ones((1, 3, 3, 8), jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.fast
@pytest.mark.parametrize("affine", [True, False])
def test_fold_batch_norm_is_the_norm_of_the_convolution(affine):
    bn = layers.BatchNorm(5, use_scale=affine, use_bias=affine, rngs=nnx.Rngs(0))
    randomised(bn)
    draw = np.random.default_rng(0)
    kernel, x = draw.normal(size=(3, 3, 2, 5)), draw.normal(size=(1, 4, 4, 2))
    scale, bias = (None, None) if not affine else (bn.scale[...], bn.bias[...])
    folded, shift = fold_batch_norm(
        jnp.asarray(kernel, jnp.float32),
        bn.mean[...],
        bn.var[...],
        scale,
        bias,
        epsilon=bn.epsilon,
    )
    expected = numpy_layers.batch_norm(bn, numpy_layers.convolution(x, kernel))
    y = numpy_layers.convolution(x, np.asarray(folded, np.float64)) + np.asarray(shift, np.float64)
    np.testing.assert_allclose(y, expected, atol=1e-5)


@pytest.mark.fast
def test_an_even_kernel_and_groups_that_do_not_divide_are_errors():
    with pytest.raises(ValueError, match=r"odd kernel_size.*Got 4"):
        layers.RepVGGBlock(4, 4, 4, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="Got 3 groups"):
        layers.RepVGGBlock(4, 4, feature_group_count=3, rngs=nnx.Rngs(0))
    block = layers.RepVGGBlock(4, 4, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"Got \(1, 5, 5, 3\)"):
        block(jnp.ones((1, 5, 5, 3)))
