# SPDX-License-Identifier: Apache-2.0
"""MobileBERT against transformers: equal outputs of three heads, both kinds of attention."""

import pytest
from flax import nnx

import efficient_layers as el
from tests.models.encoders import FIELDS, OUTPUTS, VOCABULARY, check_padded, their_model, tokens
from tests.models.published import check_weights

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

NAME = "google/mobilebert-uncased"
OURS = {
    "vocabulary": VOCABULARY,
    "max_length": 32,
    "embedding_features": 16,
    "features": 48,
    "bottleneck_features": 32,
    "depth": 2,
    "mlp_features": 40,
}
THEIRS = {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 32,
    "embedding_size": 16,
    "hidden_size": 48,
    "intra_bottleneck_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 40,
}
# The paper's MobileBERT-tiny: values of the bottleneck, two mlps.
OURS_TINY = {"bottleneck_attention": True, "num_mlps": 2}
THEIRS_TINY = {
    "use_bottleneck_attention": True,
    "key_query_shared_bottleneck": False,
    "num_feedforward_networks": 2,
}


@pytest.mark.parametrize(
    ("head", "ours", "theirs"),
    [
        ("ForSequenceClassification", {}, {}),
        ("ForMaskedLM", {}, {}),
        ("Model", OURS_TINY, THEIRS_TINY),
    ],
)
def test_outputs_equal_transformers(head, ours, theirs):
    ours = el.models.create(NAME, rngs=nnx.Rngs(0), **OURS, **ours, **FIELDS[head])
    theirs = their_model(NAME, head, **THEIRS, **theirs)
    inputs = [tokens(9), tokens(32, 1)]
    check_weights(ours, theirs, inputs, run=lambda m, x: OUTPUTS[head](m(x)))
    check_padded(ours, theirs, OUTPUTS[head])
