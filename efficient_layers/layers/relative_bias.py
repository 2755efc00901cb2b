# SPDX-License-Identifier: Apache-2.0
"""T5's learned bias of attention scores: a number for every head and every range of distances."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jaxtyping import Array, Float, Int

from efficient_layers.layers.position import Position
from efficient_layers.ops.position_bias import t5_bucket, toeplitz
from efficient_layers.ops.precision import float32_or_wider


class RelativeBias(nnx.Module):
    """scores[h, i, j] + table[bucket(j - i), h].

    Half of the buckets (of each direction, if `bidirectional`) hold one distance each, the others
    grow with the logarithm up to `max_distance`, from where everything shares the last one. The
    bias of n queries and m keys is spread from its n + m - 1 different numbers by copies, so
    neither it nor its gradient gathers or scatters n m numbers; its memory is h n m.

    params = buckets * num_heads
    MACs = 0

    The table is drawn with a standard deviation of 0.02 (T5 scales its own by the model's width).

    Reference: Raffel et al., *Exploring the Limits of Transfer Learning with a Unified
    Text-to-Text Transformer* (arXiv 1910.10683), section 2.1; buckets as in the authors' code.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> el.layers.RelativeBias(2, rngs=nnx.Rngs(0))(jnp.ones((3, 2, 5, 7))).shape
    (3, 2, 5, 7)

    Raises:
      ValueError: buckets or a max_distance too small, or an odd number of buckets in two
        directions; scores of other heads.
      TypeError: scores of integers.
    """

    def __init__(
        self,
        num_heads: int,
        *,
        buckets: int = 32,
        max_distance: int = 128,
        bidirectional: bool = True,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        _check(num_heads, buckets, max_distance, bidirectional)
        draw = nnx.initializers.normal(0.02)
        self.table = nnx.Param(draw(rngs.params(), (buckets, num_heads), param_dtype))
        self.num_heads = num_heads
        self.buckets = buckets
        self.max_distance = max_distance
        self.bidirectional = bidirectional

    def __call__(
        self, scores: Float[Array, "*b h n m"], *, query_offset: int | jax.Array = 0
    ) -> Float[Array, "*b h n m"]:
        """Scores of queries from position `query_offset` on and keys from 0 on, with the bias."""
        if not jnp.issubdtype(scores.dtype, jnp.inexact):
            raise TypeError(f"RelativeBias expects floating-point scores. Got {scores.dtype}.")
        if scores.ndim < 3 or scores.shape[-3] != self.num_heads:
            raise ValueError(
                f"RelativeBias expects scores of shape (*batch, {self.num_heads}, queries, keys). "
                f"Got {scores.shape}."
            )
        with jax.named_scope("RelativeBias"):
            bias = self.bias(*scores.shape[-2:], query_offset=query_offset).astype(scores.dtype)
            return scores + bias.reshape((1,) * (scores.ndim - 3) + bias.shape)

    def bias(self, n: int, m: int, *, query_offset: int | jax.Array = 0) -> Float[Array, "h n m"]:
        """For n queries from position `query_offset` on and m keys from 0 on."""
        distances = jnp.arange(n + m - 1, dtype=jnp.int32) - (n - 1) - query_offset
        return toeplitz(self._numbers(distances), n, m)

    def between(self, queries: Int[Array, " n"], keys: Int[Array, " m"]) -> Float[Array, "h n m"]:
        """For queries and keys at any positions: gathers n m numbers."""
        return self._numbers(keys[None, :] - queries[:, None])

    def _numbers(self, distances: Int[Array, "*s"]) -> Float[Array, "h *s"]:
        bucket = t5_bucket(
            distances,
            buckets=self.buckets,
            max_distance=self.max_distance,
            bidirectional=self.bidirectional,
        )
        table = self.table[...]
        return jnp.moveaxis(table.astype(float32_or_wider(table.dtype))[bucket], -1, 0)


@dataclass(frozen=True)
class RelativePosition(Position):
    """Settings that give an attention layer a `RelativeBias` of its own.

    With `causal` all buckets are for keys before the query. (T5 shares one table among the layers
    of a stack and does not divide scores by sqrt(head_dim).)

    >>> import efficient_layers as el
    >>> el.layers.RelativePosition(buckets=16)
    RelativePosition(buckets=16, max_distance=128)
    """

    buckets: int = 32
    max_distance: int = 128

    def make_bias(
        self, num_heads: int, *, causal: bool, param_dtype: Any, rngs: nnx.Rngs
    ) -> RelativeBias:
        """A new table."""
        return RelativeBias(
            num_heads,
            buckets=self.buckets,
            max_distance=self.max_distance,
            bidirectional=not causal,
            param_dtype=param_dtype,
            rngs=rngs,
        )


def _check(num_heads: int, buckets: int, max_distance: int, bidirectional: bool) -> None:
    directions = 2 if bidirectional else 1
    if num_heads < 1 or buckets < 2 * directions or buckets % directions:
        raise ValueError(
            f"RelativeBias expects at least one head and, with bidirectional={bidirectional}, "
            f"at least {2 * directions} buckets, a multiple of {directions}. "
            f"Got num_heads={num_heads}, buckets={buckets}."
        )
    exact = buckets // directions // 2
    if max_distance <= exact:
        raise ValueError(
            f"RelativeBias expects max_distance above {exact}, the distances with a bucket of "
            f"their own. Got {max_distance}."
        )
