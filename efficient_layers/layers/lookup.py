# SPDX-License-Identifier: Apache-2.0
"""What the embeddings share: checks of tokens, logits by the same table, the table itself."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from flax.typing import Dtype
from jaxtyping import Array, Float, Int

from efficient_layers.layers.tied_linear import tied_linear


class Lookup(nnx.Module):
    """y = table[x], with the table in some cheaper form.

    A subclass gives `_rows`: tokens (n,) -> vectors (n, features). Leading axes are folded for it:
    a product of rows takes two thirds of the time of one of three axes, forward and back.

    A token outside 0 ... num_embeddings - 1 raises where its value is known, and gives a row of NaN
    inside a transform: a wrong vector would pass unseen, NaN stops at the first loss. Outside of
    jit that reads the smallest and the largest token back from the device.
    """

    def __init__(
        self, num_embeddings: int, features: int, *, dtype: Dtype | None, param_dtype: Any
    ):
        check_sizes(type(self).__name__, num_embeddings=num_embeddings, features=features)
        self.num_embeddings = num_embeddings
        self.features = features
        self.dtype = dtype
        self.param_dtype = param_dtype

    def __call__(self, x: Int[Array, "*b"]) -> Float[Array, "*b d"]:
        """Tokens (*b) -> vectors (*b, features)."""
        name = type(self).__name__
        check_tokens(name, x, self.num_embeddings)
        with jax.named_scope(name):
            return self._rows(jnp.reshape(x, -1)).reshape(*x.shape, self.features)

    def attend(self, x: Float[Array, "*b d"]) -> Float[Array, "*b v"]:
        """Logits of every token, x table^T: the tied output layer of a language model.

        Raises ValueError and TypeError as `tied_linear` does.
        """
        with jax.named_scope(f"{type(self).__name__}.attend"):
            return tied_linear(x, self.table(), dtype=self.dtype)

    def table(self) -> Float[Array, "v d"]:
        """The vectors of all tokens."""
        return self._rows(jnp.arange(self.num_embeddings))

    def merge(self) -> nnx.Embed:
        """An `nnx.Embed` with the same outputs, its table written out in `param_dtype`."""
        table = self.table()
        return nnx.Embed(
            self.num_embeddings,
            self.features,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            embedding_init=lambda key, shape, dtype: jnp.array(table, dtype),
            rngs=nnx.Rngs(0),
        )

    def _rows(self, x: jax.Array) -> jax.Array:
        raise NotImplementedError

    def _cast(self, *arrays: jax.Array) -> Any:
        """`arrays` in `dtype`, or in that of the widest."""
        return promote_dtype(arrays, dtype=self.dtype)


def check_sizes(layer: str, **sizes: int) -> None:
    """Raises ValueError unless every size is at least 1."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{layer} expects {name} of at least 1. Got {size}.")


def check_tokens(layer: str, x: Any, vocabulary: int | None = None) -> None:
    """Raises TypeError for floats; ValueError for tokens outside 0 ... vocabulary - 1, if known."""
    if not jnp.issubdtype(x.dtype, jnp.integer):
        raise TypeError(f"{layer} expects tokens of an integer type. Got {x.dtype}.")
    if vocabulary is None or isinstance(x, jax.core.Tracer) or x.size == 0:
        return
    with jax.ensure_compile_time_eval():  # a constant inside of a jit is known, too
        low, high = map(int, jax.device_get((x.min(), x.max())))
    if low < 0 or high >= vocabulary:
        raise ValueError(
            f"{layer} expects tokens from 0 to {vocabulary - 1}. Got {low if low < 0 else high}."
        )


def table_of(embedding: nnx.Embed) -> np.ndarray:
    """The table (num_embeddings, features) in float64, for decompositions.

    Raises TypeError unless `embedding` is an `nnx.Embed` (`el.layers.Embedding` is one).
    """
    if not isinstance(embedding, nnx.Embed):
        raise TypeError(f"from_embedding expects an nnx.Embed. Got {type(embedding).__name__}.")
    return np.asarray(embedding.embedding[...], np.float64)
