# SPDX-License-Identifier: Apache-2.0
"""Embeddings against torch's and transformers': outputs and gradients of the tables."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficient_layers import layers
from efficient_layers.ops.hashing import hashed_buckets
from efficient_layers.train.state import merge, split
from tests.layers.torch_weights import transformers_module

torch = pytest.importorskip("torch", reason="torch is an oracle: see docs/dependencies.md")
pytestmark = pytest.mark.oracle

TOKENS = np.random.default_rng(0).integers(11, size=(3, 5), dtype=np.int32)


def in_torch(array):
    return torch.tensor(np.asarray(array), requires_grad=True)


def ours(layer, shape):
    """Outputs, a cotangent, and the gradients by path."""
    graphdef, params, rest = split(layer)
    cotangent = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    y, pull = jax.vjp(lambda p: merge(graphdef, p, rest)(TOKENS), params)
    return y, cotangent, pull(jnp.asarray(cotangent))[0]


def same(y, gradients, expected, tables):
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-5, atol=1e-6)
    for path, table in tables.items():
        np.testing.assert_allclose(gradients[path], table.grad.numpy(), rtol=1e-5, atol=1e-5)


def test_embedding() -> None:
    layer = layers.Embedding(11, 4, rngs=nnx.Rngs(0))
    y, cotangent, gradients = ours(layer, (3, 5, 4))
    table = in_torch(layer.embedding[...])
    expected = torch.nn.functional.embedding(torch.tensor(TOKENS, dtype=torch.long), table)
    expected.backward(torch.tensor(cotangent))
    same(y, gradients, expected, {"embedding": table})


def test_hash_embedding_is_a_weighted_bag() -> None:
    layer = layers.HashEmbedding(11, 4, buckets=5, hashes=3, seed=2, rngs=nnx.Rngs(0))
    y, cotangent, gradients = ours(layer, (3, 5, 4))
    pool, importance = in_torch(layer.pool[...]), in_torch(layer.importance[...])
    bags = np.array(hashed_buckets(jnp.asarray(TOKENS), 5, hashes=3, seed=2)).reshape(-1, 3)
    expected = torch.nn.functional.embedding_bag(
        torch.tensor(bags, dtype=torch.long),
        pool,
        per_sample_weights=importance[torch.tensor(TOKENS, dtype=torch.long).reshape(-1)],
        mode="sum",
    )
    expected = expected.reshape(3, 5, 4)
    expected.backward(torch.tensor(cotangent))
    same(y, gradients, expected, {"pool": pool, "importance": importance})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_factorized_embedding_is_alberts() -> None:
    """Its word table and mapping; positions, segments and LayerNorm between them switched off."""
    theirs = transformers_module("albert")
    config = theirs.AlbertConfig(
        vocab_size=11,
        embedding_size=4,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
    )
    albert = theirs.AlbertModel(config).eval()
    albert.embeddings.LayerNorm = torch.nn.Identity()
    with torch.no_grad():
        albert.embeddings.position_embeddings.weight.zero_()
        albert.embeddings.token_type_embeddings.weight.zero_()
    mapping = albert.encoder.embedding_hidden_mapping_in
    words = albert.embeddings.word_embeddings.weight
    layer = layers.FactorizedEmbedding(11, 8, rank=4, use_bias=True, rngs=nnx.Rngs(0))
    layer.embed.embedding.set_value(jnp.asarray(words.detach().numpy()))
    layer.project.kernel.set_value(jnp.asarray(mapping.weight.detach().numpy().T))
    layer.project.bias.set_value(jnp.asarray(mapping.bias.detach().numpy()))
    y, cotangent, gradients = ours(layer, (3, 5, 8))
    expected = mapping(albert.embeddings(torch.tensor(TOKENS, dtype=torch.long)))
    expected.backward(torch.tensor(cotangent))
    padding = albert.embeddings.word_embeddings.padding_idx
    words.grad[padding] = torch.tensor(np.array(gradients["embed/embedding"]))[padding]
    same(y, gradients, expected, {"embed/embedding": words})
    np.testing.assert_allclose(
        gradients["project/kernel"], mapping.weight.grad.numpy().T, rtol=1e-5, atol=1e-5
    )
