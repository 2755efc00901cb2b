# SPDX-License-Identifier: Apache-2.0
"""Counting inside everything that has a program of its own, and following weights through it."""

import functools

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from efficient_layers.measure.cost import cost

pytestmark = pytest.mark.fast

X = jax.ShapeDtypeStruct((4, 6), jnp.float32)
ONE = 6 * 6  # MACs of one 6 x 6 matmul on one example


class Dense(nnx.Module):
    """A bare [6, 6] weight and a function of (x, w)."""

    def __init__(self, fn, shape=(6, 6)):
        self.w = nnx.Param(jnp.ones(shape))
        self.fn = fn

    def __call__(self, x):
        return self.fn(x, self.w[...])


class Outer(nnx.Module):
    def __init__(self, fn, shape=(6, 6)):
        self.inner = Dense(fn, shape)

    def __call__(self, x):
        return self.inner(x)


def rows(fn, shape=(6, 6)):
    counted = cost(Outer(fn, shape), X)
    assert sum(row.macs for row in counted.layers) == counted.macs
    assert (
        sum(row.params for row in counted.layers) == counted.params == Outer(fn, shape).inner.w.size
    )
    return {row.name: row for row in counted.layers}


def scanned(x, w):
    return jax.lax.scan(lambda c, _: (c @ w, None), x, None, length=5)[0]


@jax.custom_vjp
def with_vjp(x, w):
    return x @ w


with_vjp.defvjp(lambda x, w: (x @ w, (x, w)), lambda r, g: (g @ r[1].T, r[0].T @ g))


@jax.custom_jvp
def with_jvp(x, w):
    return x @ w


@with_jvp.defjvp
def _(primals, tangents):
    (x, w), (dx, dw) = primals, tangents
    return x @ w, dx @ w + x @ dw


def nested(x, w):
    step = jax.checkpoint(jax.jit(lambda c: with_vjp(c, w)))

    def body(c, _):
        return jax.lax.scan(lambda d, _: (step(d), None), c, None, length=3)[0], None

    return jax.lax.scan(body, x, None, length=2)[0]


CASES = {
    "plain": (lambda x, w: x @ w, 1),
    "jit": (lambda x, w: jax.jit(lambda x, w: jax.jit(jnp.matmul)(x, w) @ w)(x, w), 2),
    "remat": (jax.checkpoint(lambda x, w: jnp.sin(x @ w)), 1),
    "custom_vjp": (with_vjp, 1),
    "custom_jvp": (with_jvp, 1),
    "scan": (scanned, 5),
    "fori_loop": (lambda x, w: jax.lax.fori_loop(0, 7, lambda _, c: c @ w, x), 7),
    "map": (lambda x, w: jax.lax.map(lambda row: row @ w, x), 1),
    "scan in scan in remat in jit in custom_vjp": (nested, 6),
    "vmap": (lambda x, w: jax.vmap(lambda row: row @ w)(x), 1),
    "vmapped scan": (lambda x, w: jax.vmap(scanned, (0, None))(x[:, None], w), 5),
    "composite": (jax.lax.composite(lambda x, w: x @ w, "el.test"), 1),
}


@pytest.mark.parametrize("name", CASES)
def test_each_call_primitive_is_entered(name):
    fn, times = CASES[name]
    found = rows(fn)
    assert list(found) == ["inner"]
    assert found["inner"].macs == times * ONE
    assert found["inner"].activations == times * 6
    assert found["inner"].kind == "linear"
    assert found["inner"].note == ""


def test_a_while_loop_counts_once_and_says_so():
    def fn(x, w):
        return jax.lax.while_loop(lambda c: (c @ w).sum() < 9.0, lambda c: c @ w + c @ w.T, x)

    row = rows(fn)["inner"]
    assert row.macs == 3 * ONE
    assert "while" in row.note
    assert "once" in row.note


def test_a_conditional_counts_its_largest_branch():
    def fn(x, w):
        branches = [lambda x: x, lambda x: x @ w @ w, lambda x: x @ w]
        return jax.lax.switch(x.sum().astype(int) % 3, branches, x)

    row = rows(fn)["inner"]
    assert row.macs == 2 * ONE
    assert row.note == "largest of 3 branches"


def fake_quant(w):
    scale = jnp.max(jnp.abs(w)) / 127
    return jnp.clip(jnp.round(w / scale), -127, 127).astype(jnp.int8).astype(w.dtype) * scale


THROUGH = {
    "cast": lambda x, w: x @ w.astype(jnp.bfloat16).astype(x.dtype),
    "transpose": lambda x, w: x @ w.T,
    "reshape": lambda x, w: x @ w.reshape(3, 12).reshape(6, 6),
    "pad": lambda x, w: x @ jnp.pad(w[:3], ((0, 3), (0, 0))),
    "roll": lambda x, w: x @ jnp.roll(w, 1, axis=0),
    "standardised": lambda x, w: x @ ((w - w.mean(0)) / (w.std(0) + 1e-5)),
    "fake quantised": lambda x, w: x @ fake_quant(w),
    "symmetric": lambda x, w: x @ jax.jit(jax.checkpoint(lambda w: w + w.T))(w),
    "masked": lambda x, w: x @ jnp.where(jnp.abs(w) > 0.1, w, 0.0),
    "picked by data": lambda x, w: x @ jnp.take(jnp.stack([w, w]), x[0, 0].astype(int), axis=0),
    "sliced by data": lambda x, w: x @ jax.lax.dynamic_slice(w, (x[0, 0].astype(int), 0), (6, 6)),
    "chosen by data": lambda x, w: x @ jax.lax.cond(x.sum() > 0, lambda: w, lambda: w.T),
    "in a zero state": lambda x, w: jax.lax.scan(
        lambda h, _: (jnp.tanh(x + h @ w), None), jnp.zeros_like(x), None, length=1
    )[0],
}


@pytest.mark.parametrize("name", THROUGH)
def test_the_weight_names_the_row_whatever_happens_on_its_way(name):
    found = rows(THROUGH[name])
    assert list(found) == ["inner"]
    assert found["inner"].macs == ONE


def test_stacked_weights_in_a_scan():
    def fn(x, stack):
        return jax.lax.scan(lambda c, w: (c @ w, None), x, stack)[0]

    row = rows(fn, (9, 6, 6))["inner"]
    assert row.macs == 9 * ONE
    assert row.shape == (9, 6, 6)


def test_vmapped_weights():
    def fn(x, stack):  # an ensemble
        return jax.vmap(jnp.matmul, (None, 0))(x, stack)

    assert rows(fn, (3, 6, 6))["inner"].macs == 3 * ONE


def test_a_product_of_two_weights_counts_but_is_no_activation():
    def fn(x, w):
        return x @ (w @ w)

    row = rows(fn)["inner"]
    assert row.macs == ONE + 6 * 6 * 6
    assert row.activations == 6


def test_products_of_data_take_the_named_scope():
    def fn(x, w):
        y = x @ w
        with jax.named_scope("attention"):
            scores = jax.jit(jax.named_scope("scores")(lambda y: y.T @ y))(y)
        return scores @ scores

    found = rows(fn)
    assert list(found) == ["inner", "attention/scores", "(no layer)"]
    assert found["attention/scores"].macs == ONE
    assert found["attention/scores"].kind == "matmul"
    assert found["(no layer)"].macs == 6 * ONE


def test_scopes_inside_and_outside_a_scan_are_joined():
    @jax.named_scope("outer")
    def fn(x, w):
        body = jax.named_scope("step")(lambda c, _: (c @ (x.T @ x), None))
        return jax.lax.scan(body, x @ w, None, length=2)[0]

    found = rows(fn)
    assert list(found) == ["inner", "outer/step"]
    assert found["outer/step"].macs == 2 * 2 * ONE


def test_an_embedded_token_does_not_take_the_next_layer():
    class Tokens(nnx.Module):
        def __init__(self, *, rngs):
            self.embed = nnx.Embed(100, 8, rngs=rngs)
            self.norm = nnx.LayerNorm(8, rngs=rngs)
            self.first = nnx.Linear(8, 2, use_bias=False, rngs=rngs)

        def __call__(self, tokens):
            return self.first(self.norm(self.embed(tokens)))

    counted = cost(nnx.eval_shape(lambda: Tokens(rngs=nnx.Rngs(0))), jnp.zeros((3, 5), jnp.int32))
    assert {row.name: row.macs for row in counted.layers} == {
        "embed": 0,
        "norm": 0,
        "first": 5 * 16,
    }


def test_work_that_cannot_be_read_is_said():
    def solve(x, w):
        matvec = functools.partial(jnp.matmul, w + 10 * jnp.eye(6))

        def solver(matvec, b):
            return jax.scipy.sparse.linalg.cg(matvec, b, maxiter=2)[0]

        return jax.lax.custom_linear_solve(matvec, x[0], solver, symmetric=True)

    counted = cost(Outer(solve), X)
    assert any("not counted" in row.note for row in counted.layers)
