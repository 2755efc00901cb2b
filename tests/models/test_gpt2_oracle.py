# SPDX-License-Identifier: Apache-2.0
"""GPT-2 against transformers: equal logits, equal training step, equal greedy generation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import efficient_layers as el
from tests.models.published import check_weights, load, randomised, relative_error, torch_model

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

V = 97
OURS = {"vocabulary": V, "max_length": 32, "features": 32, "depth": 2, "num_heads": 4}
THEIRS = {"vocab_size": V, "n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 4}
# Tokens of their default ends lie outside of the small vocabulary.
ENDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}


def tokens(n, batch=2, seed=1):
    torch = load("torch")
    x = np.random.default_rng(seed).integers(1, V, (batch, n)).astype(np.int32)
    return x, torch.from_numpy(x.astype(np.int64))


def pair(name="gpt2", **fields):
    theirs = randomised(torch_model("transformers", name, **THEIRS, **ENDS, **fields))
    return el.models.create(name, rngs=nnx.Rngs(0), **OURS), theirs


@pytest.mark.parametrize("name", ["gpt2", "distilgpt2"])
def test_logits_equal_transformers(name):
    ours, theirs = pair(name)
    check_weights(ours, theirs, [tokens(9), tokens(32, 1)], run=lambda m, x: m(x).logits)


def test_files_of_the_bare_model_load_too():
    """openai-community/gpt2 is stored without the prefix `transformer.`."""
    ours, theirs = pair()
    bare = theirs.transformer.state_dict()
    assert el.models.load_torch(ours, bare) == []
    back = el.models.export_torch(ours, "transformers_bare")
    assert all(np.array_equal(back[name], value.numpy()) for name, value in bare.items())


def test_training_step_equals_transformers():
    """One step of SGD on the loss of the next token."""
    torch = load("torch")
    ours, theirs = pair(**NO_DROPOUT)
    ours = el.models.create("gpt2", rngs=nnx.Rngs(0), dropout_rate=0, **OURS)
    el.models.load_torch(ours, theirs.state_dict())
    x, x_torch = tokens(12, 3)
    theirs.train()
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1)
    expected = theirs(x_torch, labels=x_torch).loss
    expected.backward()
    optimizer.step()
    graphdef, params, rest = nnx.split(ours, nnx.Param, ...)

    @jax.jit
    def step(params):
        def loss(params):
            logits = nnx.merge(graphdef, params, rest, copy=True)(x)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits[:, :-1], x[:, 1:])
            return losses.mean()

        value, grads = jax.value_and_grad(loss)(params)
        return value, jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)

    value, params = step(params)
    assert float(value) == pytest.approx(expected.item(), rel=1e-5)
    nnx.update(ours, params)
    updated = theirs.state_dict()
    for name, array in el.models.export_torch(ours).items():
        assert relative_error(array, updated[name]) < 1e-4, name


def test_greedy_generation_equals_transformers():
    load("torch")
    ours, theirs = pair()
    el.models.load_torch(ours, theirs.state_dict())
    x, x_torch = tokens(6)
    theirs.generation_config.eos_token_id = None
    expected = theirs.generate(x_torch, max_new_tokens=20, do_sample=False).numpy()
    found = el.models.generate(ours, jnp.asarray(x), 20)
    assert np.array_equal(found, expected)
    # An early end in one row: the other goes on, and the first is filled up with the end.
    end = int(expected[0, 9])
    theirs.generation_config.eos_token_id = theirs.generation_config.pad_token_id = end
    expected = theirs.generate(x_torch, max_new_tokens=20, do_sample=False).numpy()
    found = np.asarray(el.models.generate(ours, jnp.asarray(x), 20, eos=end))
    assert np.array_equal(found[:, : expected.shape[1]], expected)
    assert (found[:, expected.shape[1] :] == end).all()
