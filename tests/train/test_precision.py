# SPDX-License-Identifier: Apache-2.0
"""Mixed precision: which operations run in which dtype, read from the jaxpr."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import layers
from efficient_layers.train.precision import Policy, attention

pytestmark = pytest.mark.fast
MIXED = "params=f32,compute=bf16,output=f32"
BF16, F32 = jnp.dtype("bfloat16"), jnp.dtype("float32")


class Plain(nnx.Module):
    """Convolution, batch norm, layer norm, attention with dropout, classifier: plain nnx."""

    def __init__(self, dropout_rate=0.0, *, rngs):
        self.conv = nnx.Conv(3, 8, (3, 3), rngs=rngs)
        self.norms = nnx.List([nnx.BatchNorm(8, rngs=rngs), nnx.LayerNorm(8, rngs=rngs)])
        self.attention = nnx.MultiHeadAttention(
            2, 8, decode=False, dropout_rate=dropout_rate, rngs=rngs, keep_rngs=False
        )
        self.head = nnx.Linear(8, 4, rngs=rngs)

    def __call__(self, x, *, rngs=None):
        x = self.conv(x)
        for norm in self.norms:
            x = norm(x)
        tokens = x.reshape(x.shape[0], -1, 8)
        return self.head(self.attention(tokens, rngs=rngs).mean(1))


class Ours(nnx.Module):
    """The same with the layers of this library."""

    def __init__(self, *, rngs):
        self.block = layers.InvertedResidual(3, 8, expand_ratio=2, rngs=rngs)
        self.head = nnx.Linear(8, 4, rngs=rngs)

    def __call__(self, x, *, rngs=None):
        return self.head(self.block(x).mean((1, 2)))


def equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def abstract(make, *args):
    """A module of shapes: nothing is compiled, dtypes are all that these tests read."""
    return nnx.eval_shape(lambda: make(*args, rngs=nnx.Rngs(0)))


def traced(model, dropout=False):
    """The equations of one call in train mode, and the shapes of its result and statistics."""
    model.train()
    graphdef, state = nnx.split(model)

    def run(state, x):
        merged = nnx.merge(graphdef, state, copy=True)
        rngs = nnx.Rngs(1) if dropout else None
        return merged(x, rngs=rngs), nnx.state(merged, nnx.BatchStat)

    x = jax.ShapeDtypeStruct((2, 4, 4, 3), F32)
    closed = jax.make_jaxpr(run)(state, x)
    return list(equations(closed.jaxpr)), jax.eval_shape(run, state, x)


@pytest.mark.parametrize("make", [Plain, Ours])
def test_products_run_in_bfloat16_and_norms_and_softmax_in_float32(make):
    model = Policy.parse(MIXED).apply(abstract(make))
    found, (logits, statistics) = traced(model)
    products = [e for e in found if e.primitive.name in ("dot_general", "conv_general_dilated")]
    assert products
    for equation in products:
        assert {v.aval.dtype for v in equation.invars} == {BF16}, equation
    for equation in found:
        if equation.primitive.name in ("rsqrt", "exp", "reduce_max", "reduce_sum"):
            assert equation.invars[0].aval.dtype == F32, equation
    assert any(e.primitive.name == "rsqrt" for e in found)
    assert logits.dtype == F32
    assert {s.dtype for s in jax.tree.leaves(statistics)} == {F32}
    assert {p.dtype for p in jax.tree.leaves(nnx.state(model, nnx.Param))} == {F32}


def test_softmax_is_float32_with_dropout_too():
    model = Policy.parse(MIXED).apply(abstract(Plain, 0.5))
    found, _ = traced(model, dropout=True)
    exponents = [e for e in found if e.primitive.name == "exp"]
    assert exponents
    assert {e.invars[0].aval.dtype for e in exponents} == {F32}


@pytest.mark.parametrize("heads", [2, 1])
def test_attention_with_dropout_equals_numpy_up_to_rounding(heads):
    """One value head for two query heads (grouped queries) as well."""
    draw = np.random.default_rng(0)
    q = draw.normal(size=(1, 5, 2, 4)).astype(np.float32)
    k, v = (draw.normal(size=(1, 6, heads, 4)).astype(np.float32) for _ in "kv")
    got = attention(*map(jnp.asarray, (q, k, v)), dropout_rate=0.5, deterministic=True)
    k, v = (np.repeat(a, 2 // heads, axis=2) for a in (k, v))
    scores = np.einsum("bqnd,bknd->bnqk", q, k) / 2
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    np.testing.assert_allclose(got, np.einsum("bnqk,bknd->bqnd", weights, v), rtol=1e-5)


@pytest.mark.slow
def test_mixed_logits_and_gradients_are_near_the_exact_ones():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(8, 4, 4, 3)), jnp.float32)

    def run(model):
        graphdef, params, rest = nnx.split(model, nnx.Param, ...)

        def loss(params):
            y = nnx.merge(graphdef, params, rest, copy=True)(x)
            return jnp.mean(y**2), y

        return jax.jit(jax.grad(loss, has_aux=True))(params)

    model = Ours(rngs=nnx.Rngs(0))
    exact_grad, exact = run(model)
    mixed_grad, mixed = run(Policy.parse(MIXED).apply(model))
    assert float(jnp.abs(mixed - exact).max()) < 0.05 * float(jnp.abs(exact).max())
    for ours, want in zip(*map(jax.tree.leaves, (mixed_grad, exact_grad)), strict=True):
        assert ours.dtype == F32
        scale = max(float(jnp.linalg.norm(want)), 1e-2)
        assert float(jnp.linalg.norm(ours - want)) < 0.1 * scale


def test_params_and_output_may_be_bfloat16():
    class Net(nnx.Module):
        def __init__(self, *, rngs):
            self.norm, self.head = nnx.BatchNorm(2, rngs=rngs), nnx.Linear(2, 3, rngs=rngs)

        def __call__(self, x):
            return self.head(self.norm(x))

    model = Net(rngs=nnx.Rngs(0))
    paths = [path for path, _ in nnx.to_flat_state(nnx.state(model))]
    assert Policy.parse("params=bf16,compute=bf16,output=bf16").apply(model) is model
    assert {p.dtype for p in jax.tree.leaves(nnx.state(model, nnx.Param))} == {BF16}
    assert {s.dtype for s in jax.tree.leaves(nnx.state(model, nnx.BatchStat))} == {F32}
    assert model(jnp.ones((4, 2))).dtype == BF16
    assert [path for path, _ in nnx.to_flat_state(nnx.state(model))] == paths
    assert isinstance(model, Net)


def test_output_alone_is_cast_and_equal_models_have_equal_graphs():
    policy = Policy.parse("output=bf16")
    first, second = (policy.apply(nnx.Linear(2, 3, rngs=nnx.Rngs(0))) for _ in range(2))
    assert first(jnp.ones((1, 2))).dtype == BF16
    assert nnx.split(first)[0] == nnx.split(second)[0]
    assert hash(nnx.split(first)[0]) == hash(nnx.split(second)[0])
    assert type(first).__name__ == "Linear"


def test_the_default_policy_changes_nothing():
    model = nnx.Linear(2, 3, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    before = nnx.split(model)[0]
    assert Policy.parse("params=float32,compute=f32,output=float32").apply(model) is model
    assert nnx.split(model)[0] == before


def test_parse():
    assert Policy.parse(MIXED) == Policy("f32", "bf16", "f32")
    assert Policy.parse(" compute = bfloat16 ") == Policy(compute="bf16")
    assert Policy.parse("") == Policy()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("compute=int8", "compute must be one of f32, bf16, f16"),
        ("compute=", "compute must be one of"),
        ("weights=f32", "is written 'params=f32"),
        ("bf16", "is written 'params=f32"),
        ("compute=bf16,compute=f32", "each key once"),
    ],
)
def test_wrong_text_is_an_error(text, message):
    with pytest.raises(ValueError, match=message):
        Policy.parse(text)
