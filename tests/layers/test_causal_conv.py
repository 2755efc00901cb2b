# SPDX-License-Identifier: Apache-2.0
"""CausalConv: nothing leaks from the future, torch's numbers, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers.layers import CausalConv
from tests.layers import torch_weights

SETTINGS = {
    "full": {},
    "dilated": {"kernel_dilation": 3},
    "depthwise": {"feature_group_count": 4},
    "stride 2": {"strides": 2, "kernel_dilation": 2},
}


@pytest.mark.fast
@pytest.mark.parametrize("name", SETTINGS)
def test_the_future_does_not_leak_and_the_past_within_reach_is_seen(name):
    layer = CausalConv(4, 4, 3, rngs=nnx.Rngs(0), **SETTINGS[name])
    x = jnp.asarray(np.random.default_rng(0).normal(size=(11, 4)), jnp.float32)
    jacobian = jax.jit(jax.jacobian(layer))(x)  # n2 o n c
    seen = np.asarray(jnp.abs(jacobian).sum((1, 3)) > 0)
    n, dilation = np.arange(11), SETTINGS[name].get("kernel_dilation", 1)
    back = n[:: SETTINGS[name].get("strides", 1), None] - n
    np.testing.assert_array_equal(seen, np.isin(back, [0, dilation, 2 * dilation]))


@pytest.mark.fast
def test_a_prefix_gives_the_prefix():
    layer = CausalConv(4, 6, 4, kernel_dilation=2, rngs=nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 12, 4)), jnp.float32)
    np.testing.assert_allclose(layer(x[:, :, :7]), layer(x)[:, :, :7], atol=1e-6)


@pytest.mark.fast
def test_bad_sizes_and_inputs_are_errors():
    with pytest.raises(ValueError, match=r"CausalConv expects kernel_size of at least 1"):
        CausalConv(4, 4, 0, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"CausalConv expects feature_group_count to divide"):
        CausalConv(4, 6, 3, feature_group_count=4, rngs=nnx.Rngs(0))
    layer = CausalConv(4, 4, 3, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"CausalConv expects .* Got \(5, 3\)"):
        layer(jnp.ones((5, 3)))
    with pytest.raises(TypeError, match="CausalConv expects a floating-point"):
        layer(jnp.ones((5, 4), jnp.int32))


@pytest.mark.oracle
@pytest.mark.parametrize("groups", [1, 4])
def test_numbers_are_those_of_torch_on_a_sequence_padded_on_the_left(groups):
    torch = pytest.importorskip("torch", reason="torch is an oracle: see docs/dependencies.md")
    conv = torch.nn.Conv1d(4, 8, 3, dilation=2, groups=groups)
    theirs = torch.nn.Sequential(torch.nn.ConstantPad1d((4, 0), 0.0), conv)
    ours = CausalConv(4, 8, 3, kernel_dilation=2, feature_group_count=groups, rngs=nnx.Rngs(0))
    torch_weights.copy(torch_weights.randomise(theirs), [ours])
    torch_weights.assert_equal(ours, theirs, (2, 9, 4))
