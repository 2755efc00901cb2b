# SPDX-License-Identifier: Apache-2.0
"""P4Conv: turns of the input turn the output, bit for bit; parameters; bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import efficient_layers as el
from efficient_layers.layers import Conv, P4Conv
from efficient_layers.ops.p4 import filter_bank, turn

pytestmark = pytest.mark.fast


def integers(shape, seed=0):
    """Small whole numbers: their sums are exact in float32, in any order."""
    return jnp.asarray(np.random.default_rng(seed).integers(-4, 5, shape), jnp.float32)


def whole(layer):
    """`layer` with weights of whole numbers."""
    layer.kernel.set_value(integers(layer.kernel.shape, 1))
    layer.bias.set_value(integers(layer.bias.shape, 2))
    return layer


@pytest.mark.parametrize("times", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3))])
@pytest.mark.parametrize(
    ("orientations", "kernel", "strides", "size"),
    [(1, 3, 1, (6, 5)), (4, 3, 1, (6, 5)), (4, 5, 2, (7, 9)), (4, 2, 1, (5, 6)), (1, 1, 1, (4, 4))],
)
def test_a_turned_input_gives_the_turned_output_exactly(orientations, kernel, strides, size, times):
    layer = whole(
        nnx.eval_shape(
            lambda: P4Conv(3, 2, kernel, strides, in_orientations=orientations, rngs=nnx.Rngs(0))
        )
    )
    x = integers((2, *size, orientations, 3))
    both = jax.jit(lambda x: (layer(turn(x, times)), turn(layer(x), times)))
    np.testing.assert_array_equal(*both(x))


@pytest.mark.slow
def test_a_network_of_them_is_invariant_after_a_maximum_over_everything():
    first = whole(P4Conv(3, 4, in_orientations=1, rngs=nnx.Rngs(0)))
    second = whole(P4Conv(4, 5, rngs=nnx.Rngs(1)))

    @jax.jit
    def features(image):
        return second(jax.nn.relu(first(image[..., None, :]))).max((-4, -3, -2))

    image = integers((2, 6, 6, 3))
    np.testing.assert_array_equal(features(image), features(jnp.rot90(image, 1, axes=(1, 2))))
    assert (features(image) != features(image[:, ::-1])).any()  # reflections are not in p4


def count(module):
    return sum(p.size for p in jax.tree.leaves(nnx.state(module, nnx.Param)))


def test_a_quarter_of_the_plain_convolutions_weights_at_its_macs():
    ours = nnx.eval_shape(lambda: P4Conv(8, 6, use_bias=False, rngs=nnx.Rngs(0)))
    ours.kernel.set_value(integers(ours.kernel.shape, 1))
    plain = nnx.eval_shape(lambda: Conv(4 * 8, 4 * 6, (3, 3), use_bias=False, rngs=nnx.Rngs(0)))
    assert 4 * count(ours) == count(plain)
    x = jax.ShapeDtypeStruct((1, 7, 7, 4, 8), jnp.float32)
    macs = el.measure.cost(plain, jax.ShapeDtypeStruct((1, 7, 7, 32), jnp.float32)).macs
    assert el.measure.cost(ours, x).macs == macs
    plain.kernel.set_value(filter_bank(ours.kernel[...]))
    values = integers((2, 7, 7, 4, 8))
    y = plain(values.reshape(2, 7, 7, 32)).reshape(2, 7, 7, 4, 6)
    np.testing.assert_allclose(ours(values), y, atol=1e-5)


def test_half_the_filters_keep_the_parameters():
    """Cohen & Welling, section 8.1: dividing the number of filters by sqrt(4)."""
    ours = nnx.eval_shape(lambda: P4Conv(10, 10, use_bias=False, rngs=nnx.Rngs(0)))
    plain = nnx.eval_shape(lambda: Conv(20, 20, (3, 3), use_bias=False, rngs=nnx.Rngs(0)))
    assert count(ours) == count(plain)


def test_bad_sizes_and_inputs_are_errors():
    with pytest.raises(ValueError, match=r"at least 1. Got \(0, 2, 3, 1\)"):
        P4Conv(0, 2, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"in_orientations of 1 .* Got 2"):
        P4Conv(1, 2, in_orientations=2, rngs=nnx.Rngs(0))
    layer = P4Conv(3, 2, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"\(\*batch, h, w, 4, 3\). Got \(1, 5, 5, 3\)"):
        layer(jnp.ones((1, 5, 5, 3)))
    with pytest.raises(TypeError, match=r"floating-point input. Got int32"):
        layer(jnp.ones((1, 5, 5, 4, 3), jnp.int32))
    with pytest.raises(ValueError, match=r"Got \(3, 2, 4, 1, 1\)"):
        filter_bank(jnp.ones((3, 2, 4, 1, 1)))
