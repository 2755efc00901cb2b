# SPDX-License-Identifier: Apache-2.0
"""Generation: equal to a model without a cache, drawn from the right distribution, one program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import efficient_layers as el
from efficient_layers.models.generate import filtered, run
from tests.models.cases.decoder import SMALL as DECODER
from tests.models.cases.gpt2 import SMALL

PROMPT = jnp.asarray([[3, 1, 4, 1], [5, 9, 2, 6]], jnp.int32)


@pytest.fixture(scope="module")
def gpt2():
    return el.models.create("gpt2", rngs=nnx.Rngs(0), **SMALL)


def by_hand(model, prompt, new):
    """Every token from a call on all tokens so far."""
    model = nnx.merge(*nnx.split(model))
    model.eval()
    tokens = np.zeros((len(prompt), prompt.shape[1] + new), np.int32)
    tokens[:, : prompt.shape[1]] = prompt
    graphdef, state = nnx.split(model)
    logits = jax.jit(lambda state, x: nnx.merge(graphdef, state, copy=True)(x))
    for at in range(prompt.shape[1], tokens.shape[1]):
        # Later tokens are not seen, so one shape serves all.
        tokens[:, at] = np.argmax(logits(state, tokens)[:, at - 1], -1)
    return tokens


def test_greedy_equals_no_cache_and_compiles_once(gpt2):
    before = run._cache_size()
    found = el.models.generate(gpt2, PROMPT, 8)
    assert np.array_equal(found, by_hand(gpt2, PROMPT, 8))
    other = el.models.create("gpt2", rngs=nnx.Rngs(1), **SMALL)
    again = el.models.generate(other, PROMPT[::-1], 8)
    assert run._cache_size() == before + 1  # other weights, another prompt: the same program
    assert not np.array_equal(found, again)
    assert not gpt2.dropout.deterministic  # the caller's model is still in train mode


@pytest.mark.slow
def test_the_end_token_fills_its_row(gpt2):
    plain = np.asarray(el.models.generate(gpt2, PROMPT, 8))
    end = int(plain[0, 5])
    found = np.asarray(el.models.generate(gpt2, PROMPT, 8, eos=end))
    for row, expected in zip(found, plain, strict=True):
        stop = next((i for i in range(4, 12) if expected[i] == end), 12)
        assert np.array_equal(row[:stop], expected[:stop])
        assert (row[stop:] == end).all()


def numpy_filter(logits, top_k, top_p):
    """Probabilities, token by token."""
    order = np.argsort(-logits, kind="stable")[: top_k or len(logits)]
    p = np.exp(logits[order] - logits.max())
    p /= p.sum()
    kept, total = [], 0.0
    for token, share in zip(order, p, strict=True):
        if kept and top_p is not None and total >= top_p:
            break
        kept.append(token)
        total += share
    result = np.zeros(len(logits))
    result[kept] = np.exp(logits[kept] - logits.max())
    return result / result.sum()


@pytest.mark.fast
@pytest.mark.parametrize("top_k", [None, 1, 5, 100])
@pytest.mark.parametrize("top_p", [None, 1e-6, 0.3, 0.9, 1.0])
def test_filtered_distribution(top_k, top_p):
    logits = 2 * np.random.default_rng(0).standard_normal((4, 30)).astype(np.float32)
    found = jax.nn.softmax(filtered(jnp.asarray(logits), top_k, top_p))
    expected = np.stack([numpy_filter(row.astype(np.float64), top_k, top_p) for row in logits])
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.slow
def test_draws_follow_the_distribution(gpt2):
    """The first new token of 4,000 equal prompts."""
    model = nnx.merge(*nnx.split(gpt2))
    model.eval()
    settings = {"temperature": 0.05, "top_k": 8, "top_p": 0.9}
    prompt = jnp.tile(PROMPT[:1], (4000, 1))
    found = el.models.generate(gpt2, prompt, 1, rngs=nnx.Rngs(0), **settings)[:, -1]
    logits = np.asarray(model(PROMPT[:1])[0, -1], np.float64) / settings["temperature"]
    expected = numpy_filter(logits, 8, 0.9)
    shares = np.bincount(found, minlength=len(expected)) / len(found)
    assert (shares[expected == 0] == 0).all()
    assert 2 <= (expected > 0).sum() <= 8
    np.testing.assert_allclose(shares, expected, atol=4 * np.sqrt(0.25 / len(found)))


@pytest.mark.fast
@pytest.mark.parametrize(
    ("new", "settings", "message"),
    [
        (0, {}, "max_new_tokens >= 1"),
        (13, {}, "16 positions. Got a prompt of 4 and 13 new"),
        (2, {"temperature": 1.0}, "needs a key"),
        (2, {"temperature": -1.0}, "temperature >= 0"),
        (2, {"top_k": 0}, "top_k >= 1"),
        (2, {"top_p": 1.5}, "top_p <= 1"),
    ],
)
def test_bad_settings(gpt2, new, settings, message):
    with pytest.raises(ValueError, match=message):
        el.models.generate(gpt2, PROMPT, new, **settings)


@pytest.mark.fast
def test_bad_prompts(gpt2):
    with pytest.raises(ValueError, match=r"tokens from 0 to 49\. Got 50"):
        el.models.generate(gpt2, PROMPT.at[0, 0].set(50), 2)
    with pytest.raises(ValueError, match=r"shape \(batch, n >= 1\)"):
        el.models.generate(gpt2, PROMPT[0], 2)
    with pytest.raises(ValueError, match="expects a model with init_cache"):
        el.models.generate(nnx.Linear(1, 1, rngs=nnx.Rngs(0)), PROMPT, 2)
    with pytest.raises(ValueError, match="at most max_length=16"):
        gpt2(jnp.zeros((1, 17), jnp.int32))
    with pytest.raises(ValueError, match="tokens from 0 to 49"):
        gpt2(jnp.full((1, 2), 50))


MIXERS = {
    "MultiHeadAttention": {},
    "SlidingWindowAttention": {"window": 3},
    "LinearAttention": {"chunk_size": 4},
    "GatedLinearAttention": {"chunk_size": 4, "decay_rank": 4},
    "DeltaNet": {"chunk_size": 4},
    "Performer": {"num_features": 8},
    "MinGRU": {},
    "LSTM": {},
}


@pytest.mark.slow
@pytest.mark.parametrize("mixer", MIXERS)
def test_every_mixer_generates_as_without_a_cache(mixer):
    fields = {**DECODER, "attention": mixer, "attention_options": MIXERS[mixer]}
    model = el.models.create("decoder", rngs=nnx.Rngs(0), **fields)
    found = el.models.generate(model, PROMPT, 12)
    assert np.array_equal(found, by_hand(model, PROMPT, 12))


@pytest.mark.fast
def test_a_mixer_gets_the_settings_it_knows():
    fields = {**DECODER, "attention": "SlidingWindowAttention", "attention_options": {"window": 3}}
    model = nnx.eval_shape(lambda: el.models.create("decoder", rngs=nnx.Rngs(0), **fields))
    layer = model.blocks[0].attention
    assert (layer.window, layer.causal, layer.num_kv_heads) == (3, True, 2)
    with pytest.raises(TypeError, match=r"has no argument 'windo'\. Did you mean 'window'"):
        el.models.create(
            "decoder", rngs=nnx.Rngs(0), **{**fields, "attention_options": {"windo": 3}}
        )
    with pytest.raises(ValueError, match=r"no layer 'DeltaNett'\. Did you mean 'DeltaNet'"):
        el.models.create("decoder", rngs=nnx.Rngs(0), **{**DECODER, "attention": "DeltaNett"})
    model = nnx.eval_shape(
        lambda: el.models.create(
            "decoder",
            rngs=nnx.Rngs(0),
            **{**DECODER, "attention": "CausalConv", "attention_options": {"kernel_size": 3}},
        )
    )
    with pytest.raises(ValueError, match="CausalConv does not decode token by token"):
        model.init_cache(1, 4)


@pytest.mark.fast
def test_swap_hands_settings_on():
    """Of GPT-2: causal stays causal in another layer."""
    swap = {"blocks/*/attention": "LinearAttention"}
    model = nnx.eval_shape(lambda: el.models.create("gpt2", rngs=nnx.Rngs(0), swap=swap, **SMALL))
    assert model.blocks[0].attention.causal
