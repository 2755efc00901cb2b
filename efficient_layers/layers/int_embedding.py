# SPDX-License-Identifier: Apache-2.0
"""Embedding stored as integers: rows of int8, or of int4 packed two a byte, with a scale a row."""

from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from efficient_layers.layers.lookup import Lookup, table_of
from efficient_layers.layers.quant_param import QuantParam, QuantScale
from efficient_layers.ops.embedding import rows
from efficient_layers.ops.pack import pack, unpack
from efficient_layers.ops.quantize import quantize, scale_and_zero_point

BITS = (4, 8)


class IntEmbedding(Lookup):
    """y = scale[x] codes[x], codes from -127 to 127 (`bits` 8) or -7 to 7 (`bits` 4).

    For inference: a table of a quarter or an eighth of the bytes, whose rows are made floats as
    they are picked. Codes and scales are no `nnx.Param`, so nothing here is trained; train an
    `Embedding` (or a `QuantEmbedding`) and take `from_embedding`, where a row's scale is its
    largest magnitude / 127 (or / 7), and an entry's error at most half of it. A new layer holds a
    random table. `params` counts the codes; bytes are those stored.

    params = num_embeddings * features
    MACs = 0

    `attend` writes the whole table out in floats: it saves bytes at rest, no time.

    Reference: Guan et al., *Post-Training 4-bit Quantization on Embedding Tables* (arXiv
    1911.02079), its row-wise uniform form. Differs from the paper: symmetric, without a search for
    a scale that clips.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> embedding = el.layers.Embedding(100, 16, rngs=nnx.Rngs(0))
    >>> el.layers.IntEmbedding.from_embedding(embedding, bits=4)(jnp.array([3, 7])).shape
    (2, 16)

    Raises:
      ValueError: a size below 1; bits other than 4 or 8; a token outside the table.
      TypeError: tokens of a floating type.
    """

    def __init__(
        self,
        num_embeddings: int,
        features: int,
        *,
        bits: int = 8,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(num_embeddings, features, dtype=dtype, param_dtype=param_dtype)
        if bits not in BITS:
            raise ValueError(f"IntEmbedding expects bits to be 4 or 8. Got {bits}.")
        self.bits = bits
        draw = nnx.initializers.normal(features**-0.5)
        codes, scale = _quantised(draw(rngs.params(), (num_embeddings, features)), bits)
        self.codes = QuantParam(codes, logical_shape=(num_embeddings, features))
        self.scale = QuantScale(scale.astype(param_dtype))

    @classmethod
    def from_embedding(cls, embedding: nnx.Embed, *, bits: int = 8) -> Self:
        """The rows of `embedding`, rounded.

        Raises:
          ValueError: bits as in the constructor.
          TypeError: `embedding` is no `nnx.Embed`.
        """
        table = jnp.asarray(table_of(embedding), jnp.float32)
        sizes: Any = (embedding.num_embeddings, embedding.features)
        types: dict[str, Any] = {"dtype": embedding.dtype, "param_dtype": embedding.param_dtype}
        layer = nnx.eval_shape(lambda: cls(*sizes, bits=bits, **types, rngs=nnx.Rngs(0)))
        codes, scale = _quantised(table, bits)
        layer.codes.set_value(codes)
        layer.scale.set_value(scale.astype(embedding.param_dtype))
        return layer

    def _rows(self, x: jax.Array) -> jax.Array:
        codes, scale = rows(self.codes[...], x), rows(self.scale[...], x)
        if self.bits == 4:
            codes = unpack(codes, 4, self.features)
        return self._cast(codes.astype(scale.dtype) * scale)[0]


def _quantised(table: jax.Array, bits: int) -> tuple[jax.Array, jax.Array]:
    """Codes (v, d), or packed (v, ceil(d / 2)), and scales (v, 1); a row of zeros has scale 1."""
    largest = jnp.abs(table).max(axis=1, keepdims=True)
    scale, _ = scale_and_zero_point(-largest, largest, bits=bits)
    codes = quantize(table, scale, bits=bits)
    return pack(codes, 4) if bits == 4 else codes, scale
