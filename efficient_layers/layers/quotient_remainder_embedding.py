# SPDX-License-Identifier: Apache-2.0
"""Embedding of two small tables: one row by a token's quotient, one by its remainder."""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from efficient_layers.layers.lookup import Lookup
from efficient_layers.ops.embedding import rows

COMBINE = ("mult", "add", "concat")


class QuotientRemainderEmbedding(Lookup):
    """y = quotient[x // buckets] o remainder[x mod buckets], o: times, plus or side by side.

    No two tokens share both rows, so all have vectors of their own; buckets = sqrt(num_embeddings)
    makes the fewest parameters. Vectors have variance 1 / features at the start, as those of
    `Embedding`.

    width = features // 2 if combine == "concat" else features
    params = (buckets + ceil(num_embeddings / buckets)) * width
    MACs = 0

    Reference: Shi et al., *Compositional Embeddings Using Complementary Partitions for
    Memory-Efficient Recommendation Systems* (arXiv 1909.02107), sections 2 and 4. Differs from the
    paper: the plain quotient-remainder pair, without further partitions or path-based networks.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> layer = el.layers.QuotientRemainderEmbedding(100, 16, buckets=10, rngs=nnx.Rngs(0))
    >>> layer(jnp.array([3, 99])).shape
    (2, 16)

    Raises:
      ValueError: a size below 1; more buckets than tokens; an unknown way to combine; odd features
        side by side; a token outside 0 ... num_embeddings - 1.
      TypeError: tokens of a floating type.
    """

    def __init__(
        self,
        num_embeddings: int,
        features: int,
        *,
        buckets: int,
        combine: Literal["mult", "add", "concat"] = "mult",
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(num_embeddings, features, dtype=dtype, param_dtype=param_dtype)
        _check(num_embeddings, features, buckets, combine)
        width = features // 2 if combine == "concat" else features
        # Standard deviations whose product, sum, or union has variance 1 / features.
        deviation = {"mult": features**-0.25, "add": (2 * features) ** -0.5}
        draw = nnx.initializers.normal(deviation.get(combine, features**-0.5))
        quotients = -(-num_embeddings // buckets)
        self.quotient = nnx.Param(draw(rngs.params(), (quotients, width), param_dtype))
        self.remainder = nnx.Param(draw(rngs.params(), (buckets, width), param_dtype))
        self.buckets = buckets
        self.combine = combine

    def _rows(self, x: jax.Array) -> jax.Array:
        known = (x >= 0) & (x < self.num_embeddings)
        quotient = jnp.where(known, x // self.buckets, -1)  # NaN, also in a last row not full
        pair = self._cast(
            rows(self.quotient[...], quotient), rows(self.remainder[...], x % self.buckets)
        )
        if self.combine == "concat":
            return jnp.concatenate(pair, axis=-1)
        return pair[0] * pair[1] if self.combine == "mult" else pair[0] + pair[1]


def _check(num_embeddings: int, features: int, buckets: int, combine: str) -> None:
    name = "QuotientRemainderEmbedding"
    if not 1 <= buckets <= num_embeddings:
        raise ValueError(
            f"{name} expects buckets from 1 to num_embeddings={num_embeddings}. Got {buckets}."
        )
    if combine not in COMBINE:
        raise ValueError(f"{name} expects combine to be one of {COMBINE}. Got {combine!r}.")
    if combine == "concat" and features % 2:
        raise ValueError(f"{name} expects even features to put side by side. Got {features}.")
