# SPDX-License-Identifier: Apache-2.0
"""Embedding whose entries share the few numbers of a codebook."""

from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from efficient_layers.layers.clustered_weight import ClusteredWeight, clustered, fill
from efficient_layers.layers.lookup import Lookup, table_of
from efficient_layers.ops.embedding import rows
from efficient_layers.ops.kmeans import Start


class ClusteredEmbedding(ClusteredWeight, Lookup):
    """y[d] = codebook[g(d)][codes[x, d]].

    A `ClusteredLinear` for tables: rows of packed codes are picked and made floats, the whole table
    never is, but for `attend`. `groups` are equal runs g(d) of the features. The codebook trains:
    the gradient of a centroid is the sum over the entries that were looked up.

    params = num_embeddings * features + groups * (2**bits - keep_zeros)
    MACs = 0

    Reference: Han et al., *Deep Compression* (arXiv 1510.00149), section 3. Differs from the paper:
    as `ClusteredLinear`.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> table = el.layers.Embedding(100, 16, rngs=nnx.Rngs(0))
    >>> el.layers.ClusteredEmbedding.from_embedding(table, bits=3)(jnp.array([3, 7])).shape
    (2, 16)

    Raises:
      ValueError: a size below 1; bits outside 2 ... 8; groups that do not divide features; a token
        outside the table.
      TypeError: tokens of a floating type.
    """

    def __init__(
        self,
        num_embeddings: int,
        features: int,
        *,
        bits: int = 4,
        groups: int = 1,
        keep_zeros: bool = False,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(num_embeddings, features, dtype=dtype, param_dtype=param_dtype)
        self._set_clusters(bits, groups, keep_zeros, features)
        draw = nnx.initializers.normal(features**-0.5)
        self._draw(draw(rngs.params(), (num_embeddings, features), param_dtype))

    @classmethod
    def from_embedding(
        cls,
        embedding: nnx.Embed,
        *,
        bits: int = 4,
        groups: int = 1,
        keep_zeros: bool = False,
        start: Start = "linear",
        seed: int = 0,
    ) -> Self:
        """`embedding`'s entries, each replaced by its centroid; `start` as in `ops.kmeans`.

        Raises:
          ValueError: bits, groups, start out of range; entries that are not finite.
          TypeError: `embedding` is no `nnx.Embed`.
        """
        table = table_of(embedding)
        settings: dict[str, Any] = {"bits": bits, "groups": groups, "keep_zeros": keep_zeros}
        make: Any = cls
        sizes = (embedding.num_embeddings, embedding.features)
        types: dict[str, Any] = {"dtype": embedding.dtype, "param_dtype": embedding.param_dtype}
        layer = nnx.eval_shape(lambda: make(*sizes, **settings, **types, rngs=nnx.Rngs(0)))
        fill(layer, *clustered(table, **settings, start=start, seed=seed))
        return layer

    def table(self) -> jax.Array:
        codebook = self._cast(self.codebook[...])[0]
        return self._picked(codebook, self.codes[...])

    def _rows(self, x: jax.Array) -> jax.Array:
        codebook = self._cast(self.codebook[...])[0]
        found = self._picked(codebook, rows(self.codes[...], x))
        known = (x >= 0) & (x < self.num_embeddings)
        return jnp.where(known[:, None], found, jnp.nan)
