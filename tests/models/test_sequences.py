# SPDX-License-Identifier: Apache-2.0
"""Models of ListOps and MQAR: padding is not seen, positions where they belong, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import efficient_layers as el
from tests.models.cases.sequences import SMALL

TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 16, (2, 12)), jnp.int32)
BIDIRECTIONAL = {
    "MultiHeadAttention": {},
    "SlidingWindowAttention": {"window": 3},
    "LinearAttention": {},
    "Performer": {"num_features": 8},
    "Linformer": {"rank": 4},
    "NystromAttention": {"num_landmarks": 4},
    "GatedLinearAttention": {},
    "GRU": {},
    "CausalConv": {"kernel_size": 3},
}


def create(name, **fields):
    model = el.models.create(name, rngs=nnx.Rngs(0), **{**SMALL, **fields})
    model.eval()
    return model


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_padding_changes_no_logit(pooling):
    model = create("sequence_classifier", pooling=pooling)
    mask = jnp.arange(12) < jnp.asarray([[7], [12]])
    padded = model(TOKENS, mask=mask)
    np.testing.assert_allclose(padded[:1], model(TOKENS[:1, :7]), atol=1e-5)
    other = model(TOKENS.at[0, 7:].set(3), mask=mask)
    np.testing.assert_allclose(padded, other, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("mixer", BIDIRECTIONAL)
def test_every_mixer_classifies(mixer):
    fields = {"attention": mixer, "attention_options": BIDIRECTIONAL[mixer]}
    model = create("sequence_classifier", **fields)
    graphdef, state = nnx.split(model)
    forward = jax.jit(lambda state, x: nnx.merge(graphdef, state, copy=True)(x))
    logits = forward(state, TOKENS)
    assert np.isfinite(logits).all()
    # Weights of 0.02 make small differences: what is asked is that positions reach the logits.
    assert not np.array_equal(logits, forward(state, TOKENS[:, ::-1]))


@pytest.mark.fast
@pytest.mark.parametrize(
    ("attention", "given", "learned"),
    [
        ("MultiHeadAttention", None, True),
        ("DeltaNet", None, False),
        ("DeltaNet", True, True),
        ("MultiHeadAttention", False, False),
    ],
)
def test_learned_positions_are_for_softmax_attention(attention, given, learned):
    fields = {**SMALL, "attention": attention, "positions": given}
    model = nnx.eval_shape(lambda: el.models.create("mqar", rngs=nnx.Rngs(0), **fields))
    assert (model.positions is not None) == learned


@pytest.mark.fast
def test_bad_input():
    model = nnx.eval_shape(
        lambda: el.models.create("sequence_classifier", rngs=nnx.Rngs(0), **SMALL)
    )
    with pytest.raises(ValueError, match=r"at most max_length=12 of them. Got \(1, 13\)"):
        model(jnp.zeros((1, 13), jnp.int32))
    with pytest.raises(ValueError, match=r"boolean mask of shape \(1, 4\)"):
        model(jnp.zeros((1, 4), jnp.int32), mask=jnp.ones((1, 4)))
    with pytest.raises(ValueError, match="pooling of"):
        el.models.create("sequence_classifier", pooling="max", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="mlp_features >= 0"):
        el.models.create("mqar", mlp_features=-1, rngs=nnx.Rngs(0))
