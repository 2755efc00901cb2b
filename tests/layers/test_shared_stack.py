# SPDX-License-Identifier: Apache-2.0
"""SharedStack and tied_linear: one set of weights, all of its gradients, one compiled body."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import layers, measure

pytestmark = pytest.mark.fast
X = jnp.asarray(np.random.default_rng(0).normal(size=(3, 6)), jnp.float32)


class Block(nnx.Module):
    """x + dropout(tanh(linear(norm(x))))."""

    def __init__(self, rate=0.0, *, rngs):
        self.norm = layers.LayerNorm(6, rngs=rngs)
        self.linear = nnx.Linear(6, 6, rngs=rngs)
        self.drop = layers.DropPath(rate)

    def __call__(self, x, *, rngs=None):
        return x + self.drop(jnp.tanh(self.linear(self.norm(x))), rngs=rngs)


def block(rngs):
    return Block(rngs=rngs)


def stack(depth, groups=1, pattern="consecutive", make=block):
    return layers.SharedStack(make, depth, groups=groups, pattern=pattern, rngs=nnx.Rngs(0))


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


ORDERS = {
    ("consecutive", 1): [0] * 6,
    ("consecutive", 2): [0, 0, 0, 1, 1, 1],
    ("cycle", 3): [0, 1, 2] * 2,
    ("sandwich", 3): [0, 1, 1, 1, 1, 2],
}


@pytest.mark.parametrize(("pattern", "groups"), ORDERS)
def test_its_gradient_is_the_sum_over_untied_copies(pattern, groups):
    shared, order = stack(6, groups, pattern), ORDERS[pattern, groups]
    graphdef, state = nnx.split(shared)
    members = [nnx.split(layer) for layer in shared.layers]

    def tied(state):
        return (nnx.merge(graphdef, state)(X) ** 2).sum()

    def untied(copies):
        x = X
        for index, copy in zip(order, copies, strict=True):
            x = nnx.merge(members[index][0], copy)(x)
        return (x**2).sum()

    value, gradient = jax.jit(jax.value_and_grad(tied))(state)
    copies = [members[index][1] for index in order]
    expected, each = jax.jit(jax.value_and_grad(untied))(copies)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for index in range(groups):
        own = [leaves(g) for g, i in zip(each, order, strict=True) if i == index]
        for got, parts in zip(
            leaves(gradient["layers"][index]), zip(*own, strict=True), strict=True
        ):
            np.testing.assert_allclose(got, sum(parts), atol=1e-4)
            assert np.abs(got).max() > 0


@pytest.mark.parametrize(("pattern", "groups"), ORDERS)
def test_parameters_count_once_and_macs_every_time(pattern, groups):
    cost = measure.cost(stack(6, groups, pattern), X[:1])
    assert cost.params == groups * (6 * 6 + 6 + 12)
    assert cost.macs == 6 * 6 * 6


@pytest.mark.parametrize("pattern", ["consecutive", "cycle"])
def test_the_program_does_not_grow_with_depth(pattern):
    def size(depth):
        graphdef, state = nnx.split(stack(depth, 2, pattern))
        step = jax.jit(jax.grad(lambda state, x: (nnx.merge(graphdef, state)(x) ** 2).sum()))
        return len(re.findall(r"\n", step.lower(state, X).as_text()))

    assert size(64) == size(8)


def test_every_application_draws_anew():
    shared = layers.SharedStack(
        lambda rngs: Block(0.5, rngs=rngs), 8, groups=2, pattern="cycle", rngs=nnx.Rngs(0)
    )
    x = jnp.tile(X[:1], (256, 1))
    y = np.asarray(jax.jit(lambda key: shared(x, rngs=nnx.Rngs(dropout=key)))(jax.random.key(1)))
    # A row's output is its word of kept layers: abababab has 88 distinct subsequences. The same
    # coins in every repetition would leave 4 of them, the same for a and b in one repetition 5.
    assert 40 < len(np.unique(y.round(4), axis=0)) <= 88
    with pytest.raises(ValueError, match=r"needs a key. Got rngs=None"):
        shared(x)
    shared.eval()
    np.testing.assert_array_equal(shared(x), shared(x, rngs=nnx.Rngs(0)))


def test_bfloat16_inputs_are_promoted_as_the_first_layer_would():
    shared = stack(3)
    x = X.astype(jnp.bfloat16)
    expected = x
    for _ in range(3):
        expected = shared.layers[0](expected)
    y = shared(x)
    assert y.dtype == expected.dtype == jnp.float32
    np.testing.assert_allclose(y, expected, atol=1e-6)


class Counting(nnx.Module):
    def __init__(self, rngs):
        self.calls = nnx.Variable(jnp.zeros(()))

    def __call__(self, x):
        self.calls[...] += 1
        return x


def test_what_cannot_be_shared_is_refused_in_words():
    with pytest.raises(ValueError, match=r"groups that divide depth. Got groups=4, depth=6"):
        stack(6, 4)
    with pytest.raises(
        ValueError, match=r"'sandwich' expects 3 groups .* Got groups=2 and depth=6"
    ):
        stack(6, 2, "sandwich")
    with pytest.raises(ValueError, match=r"'cycle' or 'sandwich'. Got 'ring'"):
        stack(6, 2, "ring")
    with pytest.raises(ValueError, match=r"running statistics. Got BatchNorm with"):
        stack(2, make=lambda rngs: layers.BatchNorm(6, rngs=rngs))
    with pytest.raises(ValueError, match=r"Counting writes to its Variables"):
        stack(2, make=Counting)(X)
    with pytest.raises(ValueError, match=r"keep the shape. Linear makes \(3, 5\) of \(3, 6\)"):
        stack(2, make=lambda rngs: nnx.Linear(6, 5, rngs=rngs))(X)
    with pytest.raises(TypeError, match=r"floating-point input. Got int32"):
        stack(2)(jnp.ones((3, 6), jnp.int32))


class Tied(nnx.Module):
    """A bag of words and back: an embedding, used twice."""

    def __init__(self, rngs):
        self.embed = nnx.Embed(7, 6, rngs=rngs)

    def __call__(self, tokens):
        return layers.tied_linear(self.embed(tokens).mean(1), self.embed.embedding[...])


def test_a_tied_kernel_is_one_variable_with_the_gradient_of_both_uses():
    model, tokens = Tied(nnx.Rngs(0)), jnp.array([[0, 2], [3, 3]])
    graphdef, state = nnx.split(model)
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == 7 * 6
    table = np.asarray(model.embed.embedding[...], np.float64)
    hidden = table[np.asarray(tokens)].mean(1)
    np.testing.assert_allclose(model(tokens), hidden @ table.T, atol=1e-5)
    gradient = jax.grad(lambda s: nnx.merge(graphdef, s)(tokens).sum())(state)
    # d/dT of sum_b sum_o h_b . T_o: each output row gets sum_b h_b; each token's row sum_o T_o / 2.
    expected = np.tile(hidden.sum(0), (7, 1))
    for token in np.asarray(tokens).ravel():
        expected[token] += table.sum(0) / 2
    np.testing.assert_allclose(jax.tree.leaves(gradient)[0], expected, atol=1e-5)


def test_tied_linear_checks_and_dtypes():
    kernel = jnp.ones((5, 6))
    assert layers.tied_linear(X, kernel, jnp.ones(5))[0, 0] == pytest.approx(1 + float(X[0].sum()))
    assert layers.tied_linear(X, kernel, dtype=jnp.bfloat16).dtype == jnp.bfloat16
    with pytest.raises(ValueError, match=r"\(out, d\). Got \(3, 6\) and \(6, 5\)"):
        layers.tied_linear(X, kernel.T)
    with pytest.raises(ValueError, match=r"bias of shape \(5,\). Got \(6,\)"):
        layers.tied_linear(X, kernel, jnp.ones(6))
    with pytest.raises(TypeError, match="Got int32"):
        layers.tied_linear(X.astype(jnp.int32), kernel)
