# SPDX-License-Identifier: Apache-2.0
"""The decoder against transformers' Llama, Mistral, Qwen2 and Qwen3: logits and generation."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import efficient_layers as el
from tests.models.cases.decoder import SMALL
from tests.models.published import check_weights, load, randomised, torch_model

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

V = SMALL["vocabulary"]
THEIRS = {
    "vocab_size": V,
    "max_position_embeddings": 32,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 24,
    "bos_token_id": 0,
    "eos_token_id": None,
    "pad_token_id": 0,
}
# Name -> what both are told beside the sizes: (ours, theirs).
VARIANTS = {
    "HuggingFaceTB/SmolLM2-135M": ({}, {"rms_norm_eps": 1e-5}),
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": ({}, {"rms_norm_eps": 1e-5}),
    "mistralai/Mistral-7B-v0.1": (
        {"attention_options": {"window": 5}},
        {"rms_norm_eps": 1e-5, "sliding_window": 5},
    ),
    "Qwen/Qwen2-0.5B": ({}, {"rms_norm_eps": 1e-6}),
    "Qwen/Qwen3-0.6B": ({"head_dim": 8}, {"rms_norm_eps": 1e-6, "head_dim": 8}),
}


def tokens(n, batch=2):
    torch = load("torch")
    x = np.random.default_rng(1).integers(1, V, (batch, n)).astype(np.int32)
    return x, torch.from_numpy(x.astype(np.int64))


def pair(name):
    fields, theirs_fields = VARIANTS[name]
    ours = el.models.create(name, rngs=nnx.Rngs(0), **{**SMALL, **fields})
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": ours.config.rope_base}}
    theirs = torch_model("transformers", name, **{**THEIRS, **theirs_fields, **rope})
    return ours, randomised(theirs)


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_equal_transformers(name):
    ours, theirs = pair(name)
    check_weights(ours, theirs, [tokens(9), tokens(32, 1)], run=lambda m, x: m(x).logits)


@pytest.mark.parametrize(
    "name",
    [
        "HuggingFaceTB/SmolLM2-135M",
        pytest.param("mistralai/Mistral-7B-v0.1", marks=pytest.mark.slow),
    ],
)
def test_greedy_generation_equals_transformers(name):
    ours, theirs = pair(name)
    el.models.load_torch(ours, theirs.state_dict())
    x, x_torch = tokens(6)
    expected = theirs.generate(x_torch, max_new_tokens=20, do_sample=False).numpy()
    assert np.array_equal(el.models.generate(ours, jnp.asarray(x), 20), expected)


def test_weights_of_another_variant_are_refused():
    _, theirs = pair("Qwen/Qwen2-0.5B")
    ours, _ = pair("HuggingFaceTB/SmolLM2-135M")
    with pytest.raises(el.models.WeightsError, match=r"q_proj.bias: unexpected"):
        el.models.load_torch(ours, theirs.state_dict())
