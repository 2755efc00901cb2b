# SPDX-License-Identifier: Apache-2.0
"""LSTM, GRU, MinGRU, DiagonalSSM: torch's numbers, causality, decoding, forms of the recurrence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import layers
from efficient_layers.ops import linear_recurrence as op
from tests.layers.decoding import check_decoding, check_no_leak, check_step_is_constant
from tests.layers.torch_weights import randomise


@pytest.mark.parametrize(
    "make",
    [
        lambda rngs: layers.LSTM(3, 3, rngs=rngs),
        lambda rngs: layers.GRU(3, 3, rngs=rngs),
        lambda rngs: layers.MinGRU(3, 3, rngs=rngs),
        lambda rngs: layers.DiagonalSSM(3, 4, rngs=rngs),
    ],
    ids=["LSTM", "GRU", "MinGRU", "DiagonalSSM"],
)
def test_nothing_leaks_and_decoding_is_the_whole(make):
    layer = make(nnx.Rngs(0))
    check_no_leak(layer, 5)
    check_decoding(layer, 7)
    check_step_is_constant(layer)


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["LSTM", "GRU"])
@pytest.mark.parametrize("bias", [True, False])
def test_torch_computes_the_same_with_the_same_state(name, bias):
    torch = pytest.importorskip("torch", reason="torch is an oracle: see docs/dependencies.md")
    theirs = randomise(getattr(torch.nn, name)(3, 4, bias=bias, batch_first=True))
    ours = getattr(layers, name)(3, 4, use_bias=bias, rngs=nnx.Rngs(0))
    arrays = {k: v.numpy() for k, v in theirs.state_dict().items()}
    paths = {".".join(path) for path, _ in nnx.to_flat_state(nnx.state(ours, nnx.Param))}
    assert paths == set(arrays)
    for path, value in arrays.items():
        getattr(ours, path).set_value(jnp.asarray(value))
    x = np.random.default_rng(0).normal(size=(2, 6, 3)).astype(np.float32)
    expected, last = theirs(torch.from_numpy(x))
    y, state = ours.decode(x, ours.init_state(2))
    np.testing.assert_allclose(ours(x), expected.detach().numpy(), atol=2e-6)
    np.testing.assert_allclose(y, expected.detach().numpy(), atol=2e-6)
    lasts = last if name == "LSTM" else (last,)
    for a, b in zip(jax.tree.leaves(state), lasts, strict=True):
        np.testing.assert_allclose(a, b[0].detach().numpy(), atol=2e-6)


@pytest.mark.fast
@pytest.mark.parametrize("parts", [1, 2])
def test_the_forms_of_the_recurrence_agree(parts):
    draw = np.random.default_rng(0)
    a, b = draw.uniform(-0.7, 0.7, size=(2, parts, 2, 13, 3)).astype(np.float32)
    start = draw.normal(size=(parts, 2, 3)).astype(np.float32)
    number = (lambda v: v[0]) if parts == 1 else (lambda v: op.Complex(*v))
    loop, h = [], (start[0] if parts == 1 else start[0] + 1j * start[1])
    for t in range(13):
        now = [v[0, :, t] if parts == 1 else v[0, :, t] + 1j * v[1, :, t] for v in (a, b)]
        h = now[0] * h + now[1]
        loop.append(h)
    expected = np.stack(loop, 1)
    parts_of = (lambda y: [y]) if parts == 1 else (lambda y: [y.real, y.imag])
    for form in (op.sequential_recurrence, op.associative_recurrence):
        got = jax.jit(form)(number(a), number(b), number(start))
        for one, other in zip(parts_of(got), parts_of(expected), strict=True):
            np.testing.assert_allclose(one, other, atol=2e-6)


def test_the_first_transition_lies_in_its_ring():
    layer = layers.DiagonalSSM(3, 500, r_min=0.5, r_max=0.8, max_phase=0.3, rngs=nnx.Rngs(0))
    size = np.exp(-np.exp(np.asarray(layer.log_decay[...])))
    phase = np.exp(np.asarray(layer.log_phase[...]))
    assert 0.5 <= size.min() < 0.55
    assert 0.75 < size.max() <= 0.8
    assert 0 < phase.min() < phase.max() <= 0.3
    np.testing.assert_allclose(np.exp(layer.log_scale[...]), np.sqrt(1 - size**2), rtol=1e-4)


@pytest.mark.fast
def test_bad_arguments_are_named():
    rngs = nnx.Rngs(0)
    with pytest.raises(ValueError, match=r"GRU expects sizes.*in_features=3, hidden_features=0"):
        layers.GRU(3, 0, rngs=rngs)
    with pytest.raises(ValueError, match=r"r_min < r_max <= 1.*Got r_min=0.9, r_max=0.5"):
        layers.DiagonalSSM(3, 4, r_max=0.5, rngs=rngs)
    layer = layers.LSTM(3, 4, rngs=rngs)
    with pytest.raises(ValueError, match=r"\(\*batch, positions, 3\). Got \(2, 5\)"):
        layer(jnp.ones((2, 5)))
    with pytest.raises(ValueError, match=r"shapes \[\(2, 4\), .*Got \[\(1, 4\), "):
        layer.decode(jnp.ones((2, 1, 3)), layer.init_state(1))
