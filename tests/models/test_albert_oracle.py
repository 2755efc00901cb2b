# SPDX-License-Identifier: Apache-2.0
"""ALBERT against transformers: equal outputs of three heads, one and two groups of blocks."""

import pytest
from flax import nnx

import efficient_layers as el
from tests.models.encoders import FIELDS, OUTPUTS, VOCABULARY, check_padded, their_model, tokens
from tests.models.published import check_weights

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

SIZES = {"max_length": 32, "depth": 4, "features": 64, "num_heads": 4, "mlp_features": 128}
THEIRS = {
    "max_position_embeddings": 32,
    "num_hidden_layers": 4,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "intermediate_size": 128,
}


@pytest.mark.parametrize(
    ("name", "head", "groups"),
    [
        ("albert-base-v2", "ForSequenceClassification", 1),
        ("albert-base-v2", "ForMaskedLM", 1),
        ("albert-large-v1", "Model", 2),
    ],
)
def test_outputs_equal_transformers(name, head, groups):
    ours = el.models.create(
        name, vocabulary=VOCABULARY, groups=groups, rngs=nnx.Rngs(0), **SIZES, **FIELDS[head]
    )
    theirs = their_model(name, head, vocab_size=VOCABULARY, num_hidden_groups=groups, **THEIRS)
    inputs = [tokens(9), tokens(32, 1)]
    check_weights(ours, theirs, inputs, run=lambda m, x: OUTPUTS[head](m(x)))
    check_padded(ours, theirs, OUTPUTS[head])
