# SPDX-License-Identifier: Apache-2.0
"""Embedding whose tokens share a small pool of vectors, each token with weights of its own."""

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from efficient_layers.layers.lookup import Lookup, check_sizes
from efficient_layers.ops.embedding import rows
from efficient_layers.ops.hashing import hashed_buckets


class HashEmbedding(Lookup):
    """y = sum_i importance[x, i] pool[bucket_i(x)], i = 1 ... hashes.

    The buckets are a fixed hash of (seed, i, x), computed in the program: the same in every
    process, with no table of them. A token keeps `hashes` numbers of its own, which tell apart
    tokens that share buckets; of V tokens about V^2 / (2 buckets^hashes) pairs share all. Vectors
    have variance 1 / features at the start, as those of `Embedding`.

    params = buckets * features + num_embeddings * hashes
    MACs = 0

    Reference: Svenstrup, Hansen & Winther, *Hash Embeddings for Efficient Word Representations*
    (arXiv 1709.03933), section 3. Differs from the paper: every token has its own row of importance
    weights (there, tokens may be hashed to these rows, too), and the weights are not appended to
    the vector.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> el.layers.HashEmbedding(100, 16, buckets=10, rngs=nnx.Rngs(0))(jnp.array([3, 7])).shape
    (2, 16)

    Raises:
      ValueError: a size below 1; a token outside 0 ... num_embeddings - 1.
      TypeError: tokens of a floating type.
    """

    def __init__(
        self,
        num_embeddings: int,
        features: int,
        *,
        buckets: int,
        hashes: int = 2,
        seed: int = 0,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(num_embeddings, features, dtype=dtype, param_dtype=param_dtype)
        check_sizes(type(self).__name__, buckets=buckets, hashes=hashes)
        pool = nnx.initializers.normal(features**-0.5)
        importance = nnx.initializers.normal(hashes**-0.5)
        self.pool = nnx.Param(pool(rngs.params(), (buckets, features), param_dtype))
        shape = (num_embeddings, hashes)
        self.importance = nnx.Param(importance(rngs.params(), shape, param_dtype))
        self.buckets = buckets
        self.hashes = hashes
        self.seed = seed

    def _rows(self, x: jax.Array) -> jax.Array:
        buckets = hashed_buckets(x, self.buckets, hashes=self.hashes, seed=self.seed)
        # One gather of all hashes, then plain products: with gradients two thirds of the time of a
        # gather a hash; as a sum over an axis (n, hashes, d) the forward takes twice as long.
        shape = (self.hashes, x.size, self.features)
        vectors = rows(self.pool[...], buckets.T.reshape(-1)).reshape(shape)
        weights, vectors = self._cast(rows(self.importance[...], x), vectors)
        parts = [weights[:, i, None] * vectors[i] for i in range(self.hashes)]
        return sum(parts[1:], parts[0])
