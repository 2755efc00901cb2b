# SPDX-License-Identifier: Apache-2.0
"""BERT against transformers: equal outputs of three heads, equal training step."""

import jax
import numpy as np
import optax
import pytest
from flax import nnx

import efficient_layers as el
from tests.models.encoders import (
    CLASSES,
    FIELDS,
    OUTPUTS,
    VOCABULARY,
    check_padded,
    their_model,
    tokens,
)
from tests.models.published import check_weights, load, relative_error

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

OURS = {"vocabulary": VOCABULARY, "max_length": 32, "depth": 2}
THEIRS = {"vocab_size": VOCABULARY, "max_position_embeddings": 32, "num_hidden_layers": 2}
TINY, MINI = "google/bert_uncased_L-2_H-128_A-2", "prajjwal1/bert-mini"
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


@pytest.mark.parametrize(
    ("name", "head"),
    [(TINY, "Model"), (TINY, "ForSequenceClassification"), (TINY, "ForMaskedLM"), (MINI, "Model")],
)
def test_outputs_equal_transformers(name, head):
    ours = el.models.create(name, rngs=nnx.Rngs(0), **OURS, **FIELDS[head])
    theirs = their_model(name, head, **THEIRS)
    inputs = [tokens(9), tokens(32, 1)]
    check_weights(ours, theirs, inputs, run=lambda m, x: OUTPUTS[head](m(x)))
    check_padded(ours, theirs, OUTPUTS[head])


def test_a_file_of_pretraining_fits_every_head():
    """Older names (gamma, beta), both heads of pre-training: what a model has not is passed by."""
    theirs = their_model(TINY, "ForPreTraining", **THEIRS).state_dict()
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): value
        for name, value in theirs.items()
    }
    for head, skipped in {
        "Model": "cls",
        "ForSequenceClassification": "cls|classifier",
        "ForMaskedLM": "bert.pooler|cls.seq_relationship",
    }.items():
        model = el.models.create(TINY, rngs=nnx.Rngs(0), **OURS, **FIELDS[head])
        lines = el.models.load_torch(model, old, any_head=True)
        assert lines
        assert all(line.startswith(tuple(skipped.split("|"))) for line in lines)
        found = el.models.export_torch(model, "transformers_whole")
        name = "bert.encoder.layer.1.output.LayerNorm.weight"
        assert np.array_equal(found[name], theirs[name].numpy())


def test_training_step_equals_transformers():
    """One step of SGD, no dropout: the loss, every gradient, and every weight after it."""
    torch = load("torch")
    head = "ForSequenceClassification"
    theirs = their_model(TINY, head, **THEIRS, **NO_DROPOUT)
    fields = {**OURS, **FIELDS[head], "dropout_rate": 0.0, "attention_dropout_rate": 0.0}
    ours = el.models.create(TINY, rngs=nnx.Rngs(0), **fields)
    el.models.load_torch(ours, theirs.state_dict())
    x, x_torch = tokens(12, 4)
    y = np.arange(4, dtype=np.int32) % CLASSES
    theirs.train()
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1)
    expected = theirs(x_torch, labels=torch.from_numpy(y.astype(np.int64))).loss
    expected.backward()
    optimizer.step()
    graphdef, params, rest = nnx.split(ours, nnx.Param, ...)

    @jax.jit
    def step(params):
        def loss(params):
            logits = nnx.merge(graphdef, params, rest, copy=True)(x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        value, grads = jax.value_and_grad(loss)(params)
        return value, grads, jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)

    value, grads, params = step(params)
    assert float(value) == pytest.approx(expected.item(), rel=1e-5)
    nnx.update(ours, params)
    updated = theirs.state_dict()
    for name, array in el.models.export_torch(ours).items():
        assert relative_error(array, updated[name]) < 1e-5, name
    nnx.update(ours, grads)
    slopes = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for name, array in el.models.export_torch(ours).items():
        if not name.endswith("key.bias"):  # the softmax takes its gradient away
            assert relative_error(array, slopes[name]) < 1e-4, name
