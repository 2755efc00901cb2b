# SPDX-License-Identifier: Apache-2.0
"""Gated linear units: counts of published models, torch's three projections, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import layers


@pytest.mark.fast
def test_parameters_of_published_models():
    """Feed-forward layers: Llama 7B has 3 x 4096 x 11008, Phi-3 mini 3072 x 16384 + 8192 x 3072."""
    for width, hidden, params in [(4096, 11008, 135266304), (3072, 8192, 75497472)]:
        layer = nnx.eval_shape(lambda w=width, h=hidden: layers.SwiGLU(w, h, rngs=nnx.Rngs(0)))
        assert sum(p.size for p in jax.tree.leaves(nnx.state(layer, nnx.Param))) == params


@pytest.mark.fast
def test_bad_arguments_are_named():
    with pytest.raises(
        ValueError, match=r"SwiGLU expects sizes of at least 1. .*hidden_features=0"
    ):
        layers.SwiGLU(4, 0, rngs=nnx.Rngs(0))
    layer = layers.GEGLU(4, 6, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"GEGLU .* \(\*batch, 4\). Got \(2, 6\)"):
        layer(jnp.ones((2, 6)))
    with pytest.raises(TypeError, match=r"GEGLU expects a floating-point input. Got int32"):
        layer(jnp.ones((2, 4), jnp.int32))


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["SwiGLU", "GEGLU"])
def test_values_and_gradients_are_torchs_three_projections(name):
    torch = pytest.importorskip("torch", reason="torch is the oracle; CI installs it")
    ours = getattr(layers, name)(5, 7, 4, rngs=nnx.Rngs(0))
    act = {"SwiGLU": torch.nn.SiLU(), "GEGLU": torch.nn.GELU()}[name]
    fused = np.asarray(ours.gate_up.kernel[...])
    gate, up, down = (
        torch.tensor(w, requires_grad=True)
        for w in (fused[:, :7].T.copy(), fused[:, 7:].T.copy(), np.asarray(ours.down.kernel[...]).T)
    )
    x = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)
    tx = torch.tensor(x, requires_grad=True)
    linear = torch.nn.functional.linear
    ty = linear(act(linear(tx, gate)) * linear(tx, up), down)
    (ty**2).sum().backward()

    graphdef, state = nnx.split(ours)
    dstate, dx = jax.grad(lambda s, x: (nnx.merge(graphdef, s)(x) ** 2).sum(), (0, 1))(state, x)
    np.testing.assert_allclose(ours(x), ty.detach(), atol=1e-5)
    np.testing.assert_allclose(dx, tx.grad, atol=1e-5)
    both = np.concatenate([gate.grad.numpy().T, up.grad.numpy().T], axis=1)
    np.testing.assert_allclose(dstate["gate_up"]["kernel"][...], both, atol=1e-5)
    np.testing.assert_allclose(dstate["down"]["kernel"][...], down.grad.numpy().T, atol=1e-5)
