# SPDX-License-Identifier: Apache-2.0
"""DistilBERT against transformers: equal outputs of three heads."""

import pytest
from flax import nnx

import efficient_layers as el
from tests.models.encoders import FIELDS, OUTPUTS, VOCABULARY, check_padded, their_model, tokens
from tests.models.published import check_weights

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

SIZES = {"max_length": 32, "depth": 2, "features": 64, "num_heads": 4, "mlp_features": 128}
THEIRS = {"max_position_embeddings": 32, "n_layers": 2, "dim": 64, "n_heads": 4, "hidden_dim": 128}


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("distilbert-base-uncased", "ForSequenceClassification"),
        ("distilbert-base-uncased", "ForMaskedLM"),
        ("distilbert-base-cased", "Model"),
    ],
)
def test_outputs_equal_transformers(name, head):
    ours = el.models.create(name, vocabulary=VOCABULARY, rngs=nnx.Rngs(0), **SIZES, **FIELDS[head])
    theirs = their_model(name, head, vocab_size=VOCABULARY, **THEIRS)
    output = OUTPUTS[head]
    if head == "Model":  # it has no pooler
        output = lambda result: result.last_hidden_state[:, 0]  # noqa: E731
    inputs = [tokens(9), tokens(32, 1)]
    check_weights(ours, theirs, inputs, run=lambda m, x: output(m(x)))
    check_padded(ours, theirs, output, segments=False)
