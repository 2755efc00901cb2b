# SPDX-License-Identifier: Apache-2.0
"""feeders: who feeds whom, through which functions, and what ends a flow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import layers
from efficient_layers.compress.feeders import feeders
from efficient_layers.ops.activation import relu6

X = jnp.ones((2, 8))


class Pair(nnx.Module):
    """a, something, b."""

    def __init__(self, between, rngs: nnx.Rngs):
        self.between = between
        self.a = nnx.Linear(8, 6, rngs=rngs)
        self.b = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.b(self.between(self.a(x)))


def pair(between):
    return nnx.eval_shape(lambda: Pair(between, nnx.Rngs(0)))


@pytest.mark.parametrize(
    "between",
    [
        lambda x: x,
        jax.nn.relu,
        jax.nn.leaky_relu,
        lambda x: jnp.where(x > 0, x, 0) / 3 - 0.0,
        lambda x: jnp.maximum(x, 0.5 * x),
        lambda x: x + jax.nn.relu(-x),
        lambda x: x * jnp.arange(6.0),
        lambda x: jnp.pad(x[:, None], ((0, 0), (1, 1), (0, 0))).sum(1),
        lambda x: jnp.concatenate([x, 2 * x]).reshape(2, 2, 6).max(0).astype(jnp.bfloat16),
        jax.checkpoint(jax.nn.relu),
        jax.jit(lambda x: nnx.max_pool(x[..., None, :], (1,)).squeeze(1)),
    ],
)
def test_scale_free_functions(between):
    output = feeders(pair(between), X)["a"]
    assert output.elsewhere == ""
    (way,) = output.ways
    assert way.consumer == "b"
    np.testing.assert_array_equal(way.channels, np.arange(6))


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        (relu6, "a clip such as ReLU6 is not scale-free in clip"),
        (jnp.tanh, "it goes into tanh"),
        (jax.nn.sigmoid, "it goes into logistic"),
        (lambda x: x * x, "it goes into mul"),
        (lambda x: x + 1, "it is added to something else"),
        (lambda x: x + x[:, ::-1], "it is added to something else"),
        (lambda x: 1 / x, "it goes into div"),
        (lambda x: jnp.concatenate([x, jnp.ones((1, 6))]), "it is joined with something else"),
        (lambda x: x @ jnp.ones((6, 6)), "it goes into dot_general"),
        (lambda x: jnp.cumsum(x, 1), "it goes into cumsum"),
        (lambda x: jnp.where(x > 1, x, 0), "it goes into gt"),
        (lambda x: jnp.broadcast_to(x.sum(1, keepdims=True), x.shape), "it goes into reduce_sum"),
        (lambda x: jax.lax.scan(lambda c, y: (c, y), 0, x)[1], "it goes into scan"),
    ],
)
def test_what_ends_a_flow(between, reason):
    output = feeders(pair(between), X)["a"]
    assert reason in output.elsewhere
    assert not output.free.any()


class Shapes(nnx.Module):
    """Flattened rows, a half of the channels, gates, a norm for two layers."""

    def __init__(self, rngs: nnx.Rngs):
        self.conv = layers.Conv(1, 2, (3, 3), rngs=rngs)
        self.flat = nnx.Linear(2 * 4 * 4, 8, rngs=rngs)
        self.norm = layers.RMSNorm(8, rngs=rngs)
        self.gate_up = nnx.Linear(8, 12, rngs=rngs)
        self.plain = nnx.LinearGeneral(8, (2, 3), rngs=rngs)
        self.down = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.norm(self.flat(self.conv(x).reshape(x.shape[0], -1)))
        gate, up = jnp.split(self.gate_up(inputs=x), 2, axis=-1)
        return self.down(jax.nn.silu(gate) * up) + self.plain(x).sum(1)


def test_channels_are_followed():
    found = feeders(nnx.eval_shape(lambda: Shapes(nnx.Rngs(0))), jnp.ones((2, 4, 4, 1)))
    (way,) = found["conv"].ways
    np.testing.assert_array_equal(way.channels, np.tile([0, 1], 16))
    assert [way.consumer for way in found["norm"].ways] == ["gate_up", "plain"]
    assert found["norm"].free.all()
    (way,) = found["gate_up"].ways
    np.testing.assert_array_equal(way.channels, 6 + np.arange(6))
    np.testing.assert_array_equal(found["gate_up"].free, [False] * 6 + [True] * 6)
    assert found["gate_up"].elsewhere == "it goes into logistic in silu"


def test_joined_with_others():
    class Joined(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.a = nnx.Linear(8, 2, rngs=rngs)
            self.b = nnx.Linear(8, 3, rngs=rngs)
            self.c = nnx.Linear(14, 3, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            a, b = self.a(x), jax.nn.relu(self.b(x))
            return self.c(jnp.pad(jnp.concatenate([b, x, a], -1), ((0, 0), (0, 1))))

    found = feeders(nnx.eval_shape(lambda: Joined(nnx.Rngs(0))), X)
    (way,) = found["a"].ways
    np.testing.assert_array_equal(way.channels, [-1] * 11 + [0, 1, -1])
    np.testing.assert_array_equal(way.at(np.array([5, 7]), 1), [1] * 11 + [5, 7, 1])
    (way,) = found["b"].ways
    np.testing.assert_array_equal(way.channels, [0, 1, 2] + [-1] * 11)
    assert found["a"].free.all()
    assert found["a"].elsewhere == ""


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_values_feed_the_output_of_attention(kv_heads):
    def make():
        return nnx.Sequential(
            layers.GroupedQueryAttention(8, 4, num_kv_heads=kv_heads, rngs=nnx.Rngs(0))
        )

    found = feeders(nnx.eval_shape(make), jnp.ones((2, 3, 8)))
    (way,) = found["layers/0/value"].ways
    assert way.consumer == "layers/0/out"
    expected = np.arange(2 * kv_heads).reshape(kv_heads, 1, 2).repeat(4 // kv_heads, 1)
    np.testing.assert_array_equal(way.channels, expected.ravel())
    assert found["layers/0/value"].free.all()
    assert not found["layers/0/query"].free.any()


class Misused(nnx.Module):
    """Layers whose weights do more than their calls say."""

    def __init__(self, rngs: nnx.Rngs):
        self.first, self.tied, self.read, self.last = (
            nnx.Linear(8, 8, rngs=rngs) for _ in range(4)
        )
        self.tied.kernel = self.first.kernel
        self.twice = nnx.Linear(8, 8, rngs=rngs)
        self.end = nnx.Linear(8, 8, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.read(self.tied(self.first(x))) + x @ self.read.kernel[...]
        return self.end(self.last(self.twice(self.twice(x))))


def test_weights_that_are_used_elsewhere():
    found = feeders(nnx.eval_shape(lambda: Misused(nnx.Rngs(0))), X)
    reasons = {path: output.elsewhere for path, output in found.items()}
    assert reasons["first"] == "its weights are used outside of its call"
    assert reasons["tied"] == "its weights are used outside of its call"
    assert reasons["read"] == "its weights are used outside of its call"
    assert reasons["twice"] == "it is called 2 times"
    assert reasons["last"] == ""
    assert reasons["end"] == "it is an output of the model"


def test_inside_a_vmap():
    class Mapped(Pair):
        def __call__(self, x: jax.Array) -> jax.Array:
            return jax.vmap(super().__call__, in_axes=1)(x)

    found = feeders(nnx.eval_shape(lambda: Mapped(jax.nn.relu, nnx.Rngs(0))), jnp.ones((8, 2)))
    assert found["a"].elsewhere == "it is called in a vmap"
    assert not found["a"].free.any()


def test_inside_a_scan():
    class Scanned(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.a = nnx.Linear(8, 8, rngs=rngs)
            self.b = nnx.Linear(8, 8, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            def step(x, _):
                return self.b(jax.nn.relu(self.a(x))), None

            return jax.lax.scan(step, x, None, length=3)[0]

    found = feeders(nnx.eval_shape(lambda: Scanned(nnx.Rngs(0))), X)
    assert [way.consumer for way in found["a"].ways] == ["b"]
    assert found["a"].elsewhere == ""
    assert found["b"].elsewhere == "it leaves a scan"
