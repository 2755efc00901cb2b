# SPDX-License-Identifier: Apache-2.0
"""Embedding layer: a drop-in replacement of `flax.nnx.Embed`, and its tied output."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from efficient_layers.layers.lookup import Lookup, check_sizes
from efficient_layers.ops.embedding import rows


class Embedding(Lookup, nnx.Embed):  # type: ignore[misc]  # names of flax's arguments
    """y = embedding[x]; `attend(x)` = x embedding^T, the logits of a model with tied weights.

    `flax.nnx.Embed`: same constructor, names, state and numbers. What differs: a token outside
    0 ... num_embeddings - 1 raises where its value is known, and gives NaN in a transform (flax
    wraps negative ones around); rows are picked first and cast then, so with `dtype` bfloat16 the
    gradient of a frequent token is still summed in `param_dtype`; `dtype=None` is the type of the
    parameters at the call.

    Tying needs no layer: call `attend` of the input embedding, one Variable, whose gradient is the
    sum over both uses.

    params = num_embeddings * features
    MACs = 0

    `attend` costs positions * features * num_embeddings MACs.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> layer = el.layers.Embedding(100, 8, rngs=nnx.Rngs(0))
    >>> layer.attend(layer(jnp.array([[1, 99, 3]]))).shape
    (1, 3, 100)

    Raises:
      ValueError: a size below 1; a token outside the table.
      TypeError: tokens of a floating type.
    """

    def __init__(
        self,
        num_embeddings: int,
        features: int,
        *,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
        **kwargs: Any,
    ):
        check_sizes(type(self).__name__, num_embeddings=num_embeddings, features=features)
        nnx.Embed.__init__(
            self, num_embeddings, features, param_dtype=param_dtype, rngs=rngs, **kwargs
        )
        self.dtype = dtype

    def table(self) -> jax.Array:
        return self.embedding[...]

    def _rows(self, x: jax.Array) -> jax.Array:
        return self._cast(rows(self.embedding[...], x))[0]
