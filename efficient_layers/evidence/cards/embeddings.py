# SPDX-License-Identifier: Apache-2.0
"""Cards of embeddings: 30,000 tokens of 768 features, 2,048 looked up, so that times compare."""

import jax.numpy as jnp
from flax import nnx

from efficient_layers import layers
from efficient_layers.evidence.cards.card import Card, Side

_VOCABULARY, _FEATURES = 30_000, 768
_SIZES = (_VOCABULARY, _FEATURES)
_TOKENS = (16, 128)
_TABLE = Side("nnx.Embed 30,000 x 768", lambda rngs: nnx.Embed(*_SIZES, rngs=rngs))

CARDS = (
    Card(
        name="embedding",
        layers=("Embedding",),
        pays="nnx.Embed with errors for bad tokens and exact gradient sums in bfloat16",
        x=_TOKENS,
        vocabulary=_VOCABULARY,
        baseline=Side(
            "nnx.Embed, bfloat16", lambda rngs: nnx.Embed(*_SIZES, dtype=jnp.bfloat16, rngs=rngs)
        ),
        sides=(
            Side("bfloat16", lambda rngs: layers.Embedding(*_SIZES, dtype=jnp.bfloat16, rngs=rngs)),
            Side("float32", lambda rngs: layers.Embedding(*_SIZES, rngs=rngs)),
        ),
    ),
    Card(
        name="factorized_embedding",
        layers=("FactorizedEmbedding",),
        pays="rank / features of the bytes, for a matmul a token; logits as cheaply",
        x=_TOKENS,
        vocabulary=_VOCABULARY,
        baseline=_TABLE,
        sides=(
            Side("rank 128", lambda rngs: layers.FactorizedEmbedding(*_SIZES, rank=128, rngs=rngs)),
            Side("rank 32", lambda rngs: layers.FactorizedEmbedding(*_SIZES, rank=32, rngs=rngs)),
        ),
    ),
    Card(
        name="hash_embedding",
        layers=("HashEmbedding",),
        pays="a tenth of the bytes without a matmul, every token told apart",
        x=_TOKENS,
        vocabulary=_VOCABULARY,
        baseline=_TABLE,
        sides=(
            Side(
                "3,000 buckets, 2 hashes",
                lambda rngs: layers.HashEmbedding(*_SIZES, buckets=3000, rngs=rngs),
            ),
        ),
    ),
    Card(
        name="quotient_remainder_embedding",
        layers=("QuotientRemainderEmbedding",),
        pays="the fewest bytes (sqrt) with a vector of its own for every token: huge vocabularies",
        x=_TOKENS,
        vocabulary=_VOCABULARY,
        baseline=_TABLE,
        sides=(
            Side(
                "174 buckets, times",
                lambda rngs: layers.QuotientRemainderEmbedding(*_SIZES, buckets=174, rngs=rngs),
            ),
            Side(
                "7,500 buckets, times",
                lambda rngs: layers.QuotientRemainderEmbedding(*_SIZES, buckets=7500, rngs=rngs),
            ),
        ),
    ),
    Card(
        name="random_projection_embedding",
        layers=("RandomProjectionEmbedding",),
        pays="no vocabulary, no table: text on a device, words never seen",
        x=_TOKENS,
        vocabulary=_VOCABULARY,
        baseline=_TABLE,
        sides=(Side("code of 512", lambda rngs: layers.RandomProjectionEmbedding(768, rngs=rngs)),),
    ),
    Card(
        name="int_embedding",
        layers=("IntEmbedding",),
        pays="inference: a quarter or an eighth of the bytes of a trained table, at its speed",
        x=_TOKENS,
        vocabulary=_VOCABULARY,
        baseline=_TABLE,
        sides=(
            Side("int8", lambda rngs: layers.IntEmbedding(*_SIZES, rngs=rngs)),
            Side("int4", lambda rngs: layers.IntEmbedding(*_SIZES, bits=4, rngs=rngs)),
        ),
    ),
)
