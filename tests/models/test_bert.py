# SPDX-License-Identifier: Apache-2.0
"""BERT and its relatives: what they refuse, other layers in the place of their attention."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import efficient_layers as el

pytestmark = pytest.mark.fast

SMALL = {"vocabulary": 50, "max_length": 8, "features": 16, "depth": 2, "num_heads": 2}
SIZES = {
    "albert": {"embedding_features": 8},
    "mobilebert": {"embedding_features": 8, "bottleneck_features": 8, "mlp_features": 8},
}
X = np.full((2, 5), 3, np.int32)


@pytest.fixture(scope="module")
def small():
    model = el.models.create("bert", rngs=nnx.Rngs(0), **SMALL)
    model.eval()
    return model


@pytest.mark.parametrize(
    ("x", "inputs", "error", "match"),
    [
        (X + 47, {}, ValueError, "tokens from 0 to 49. Got 50"),
        (X - 4, {}, ValueError, "tokens from 0 to 49. Got -1"),
        (X.astype(np.float32), {}, TypeError, "integer type"),
        (np.zeros((2, 9), np.int32), {}, ValueError, r"n from 1 to 8. Got \(2, 9\).*max_length"),
        (X[0], {}, ValueError, r"tokens of shape \(batch, n\)"),
        (X, {"segments": X - 1}, ValueError, "tokens from 0 to 1. Got 2"),
        (X, {"segments": X[:1]}, ValueError, r"segments of the tokens' shape \(2, 5\)"),
        (X, {"mask": X[:, :2] > 0}, ValueError, r"a mask of the tokens' shape \(2, 5\)"),
        (X, {"mask": X}, TypeError, "boolean mask"),
    ],
)
def test_bad_input(small, x, inputs, error, match):
    with pytest.raises(error, match=match):
        small(jnp.asarray(x), **{name: jnp.asarray(value) for name, value in inputs.items()})


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"depth": 0}, "of at least 1"),
        ({"attention_dropout_rate": 1.0}, "rates of dropout"),
        ({"activation": "gleu"}, "Did you mean 'gelu'"),
        ({"head": "nsp"}, "no head 'nsp'"),
        ({"head": "mlm", "num_classes": 2}, "no classes"),
        ({"num_heads": 3}, "num_heads that divide"),
    ],
)
def test_bad_fields(fields, match):
    with pytest.raises(ValueError, match=match):
        nnx.eval_shape(lambda: el.models.create("bert", rngs=nnx.Rngs(0), **{**SMALL, **fields}))


def shape(model, **inputs):
    """Of the output; nothing is computed."""
    model.eval()
    graphdef, state = nnx.split(model)
    run = lambda state, inputs: nnx.merge(graphdef, state, copy=True)(jnp.asarray(X), **inputs)  # noqa: E731
    return jax.eval_shape(run, state, inputs).shape


@pytest.mark.parametrize("family", ["bert", "albert", "distilbert", "mobilebert"])
@pytest.mark.parametrize(
    ("layer", "takes_mask"),
    [({"layer": "GroupedQueryAttention", "num_kv_heads": 1}, True), ("LinearAttention", False)],
)
def test_attention_exchanged(family, layer, takes_mask):
    """Grouped queries take the mask; linear attention takes none and says so."""
    fields = {**SMALL, **SIZES.get(family, {}), "num_classes": 3}
    swap = {"blocks/**/attention": layer}
    model = nnx.eval_shape(lambda: el.models.create(family, rngs=nnx.Rngs(0), swap=swap, **fields))
    name = layer if isinstance(layer, str) else layer["layer"]
    blocks = model.blocks.layers if family == "albert" else model.blocks
    assert {type(block.attention).__name__ for block in blocks} == {name}
    assert shape(model) == (2, 3)
    if takes_mask:
        assert shape(model, mask=jnp.asarray(X > 0)) == (2, 3)
    else:
        with pytest.raises(ValueError, match="LinearAttention takes no mask"):
            shape(model, mask=jnp.asarray(X > 0))


def test_distilbert_has_no_segments():
    model = nnx.eval_shape(lambda: el.models.create("distilbert", rngs=nnx.Rngs(0), **SMALL))
    with pytest.raises(ValueError, match="DistilBert knows no segments"):
        shape(model, segments=jnp.asarray(X))


def test_albert_has_one_block_for_all_depths():
    """Depth costs no parameters, and as many MACs as in BERT."""
    x = jax.ShapeDtypeStruct((1, 8), jnp.int32)
    costs = [
        el.measure.cost(
            nnx.eval_shape(
                lambda d=depth: el.models.create(
                    "albert", rngs=nnx.Rngs(0), **{**SMALL, **SIZES["albert"], "depth": d}
                )
            ),
            x,
        )
        for depth in (2, 4)
    ]
    block = 8 * (12 * 16 * 16 + 2 * 8 * 16)
    assert costs[0].params == costs[1].params
    assert costs[1].macs - costs[0].macs == 2 * block


def test_a_wider_embedding_than_the_features_is_refused():
    with pytest.raises(ValueError, match="narrower than its features"):
        el.models.describe("mobilebert", embedding_features=512)


@pytest.mark.slow
@pytest.mark.parametrize(
    "swap", [{}, {"swap": {"blocks/1/attention": "LinearAttention"}}], ids=["softmax", "linear"]
)
def test_last_block_for_the_first_token_alone(swap):
    """The same features as with all tokens' (which `out` asks for); the reference computes all."""
    model = el.models.create("bert", rngs=nnx.Rngs(0), **SMALL, **swap)
    model.eval()
    x = jnp.asarray(np.arange(10).reshape(2, 5))
    inputs = {} if swap else {"mask": jnp.asarray(np.arange(5) < np.array([[5], [3]]))}
    graphdef, state = nnx.split(model)

    @jax.jit
    def both(state):
        out = {}
        model = nnx.merge(graphdef, state, copy=True)
        return model(x, **inputs), model(x, **inputs, out=out), out["tokens"]

    short, full, tokens = both(state)
    assert tokens.shape == (2, 5, 16)
    np.testing.assert_allclose(short, full, rtol=1e-5, atol=1e-6)
    if not swap:
        macs = 2 * 5 * (12 * 16 * 16 + 2 * 5 * 16) + 16 * 16
        assert el.measure.cost(model, jax.ShapeDtypeStruct((1, 5), jnp.int32)).macs == macs
