# SPDX-License-Identifier: Apache-2.0
"""Embedding of two factors: a narrow table, and a projection to the model's width."""

from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.typing import Dtype
from jaxtyping import Array, Float

from efficient_layers.layers.embedding import Embedding
from efficient_layers.layers.lookup import Lookup, check_sizes, table_of
from efficient_layers.layers.tied_linear import tied_linear


class FactorizedEmbedding(Lookup):
    """y = embed(x) P (+ bias): a table of `rank` numbers a token, projected to `features`.

    The table of all vectors has rank `rank`. `attend` never makes it: x P^T first, then the narrow
    table. Vectors have variance 1 / features at the start, as those of `Embedding`.
    `from_embedding` is the nearest such table in the Frobenius norm (singular values).

    params = num_embeddings * rank + rank * features + features * use_bias
    MACs = positions * rank * features

    `attend` costs positions * rank * (features + num_embeddings) MACs.

    Reference: Lan et al., *ALBERT: A Lite BERT for Self-supervised Learning of Language
    Representations* (arXiv 1909.11942), section 3.1. Differs from the paper: there position and
    segment vectors, LayerNorm and dropout stand between the two; compose them from `Embedding` and
    `nnx.Linear` where that is wanted.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> el.layers.FactorizedEmbedding(100, 16, rank=4, rngs=nnx.Rngs(0))(jnp.array([3, 7])).shape
    (2, 16)

    Raises:
      ValueError: a size below 1; a rank above both sizes; a token outside the table.
      TypeError: tokens of a floating type.
    """

    def __init__(
        self,
        num_embeddings: int,
        features: int,
        *,
        rank: int,
        use_bias: bool = False,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(num_embeddings, features, dtype=dtype, param_dtype=param_dtype)
        check_sizes(type(self).__name__, rank=rank)
        if rank > min(num_embeddings, features):
            raise ValueError(
                f"FactorizedEmbedding expects a rank of at most {min(num_embeddings, features)}, "
                f"the smaller side of a table of {num_embeddings} x {features}. Got {rank}."
            )
        types: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        draw = nnx.initializers.normal(features**-0.5)
        self.embed = Embedding(num_embeddings, rank, embedding_init=draw, **types)
        self.project = nnx.Linear(rank, features, use_bias=use_bias, **types)
        self.rank = rank
        self.use_bias = use_bias

    @classmethod
    def from_embedding(cls, embedding: nnx.Embed, *, rank: int) -> Self:
        """The nearest table of this rank; exact where `embedding`'s has it.

        Raises:
          ValueError: rank as in the constructor.
          TypeError: `embedding` is no `nnx.Embed`.
        """
        left, values, right = np.linalg.svd(table_of(embedding), full_matrices=False)
        root = np.sqrt(values[:rank])
        param_dtype = embedding.param_dtype
        layer = nnx.eval_shape(
            lambda: cls(
                embedding.num_embeddings,
                embedding.features,
                rank=rank,
                dtype=embedding.dtype,
                param_dtype=param_dtype,
                rngs=nnx.Rngs(0),
            )
        )
        layer.embed.embedding.set_value(jnp.asarray(left[:, :rank] * root, param_dtype))
        layer.project.kernel.set_value(jnp.asarray(root[:, None] * right[:rank], param_dtype))
        return layer

    def attend(self, x: Float[Array, "*b d"]) -> Float[Array, "*b v"]:
        """Logits of every token, through the narrow table."""
        with jax.named_scope("FactorizedEmbedding.attend"):
            y = self.embed.attend(tied_linear(x, self.project.kernel[...], dtype=self.dtype))
            if self.project.bias is None:
                return y
            x, bias = self._cast(x, self.project.bias[...])
            return y + (x @ bias)[..., None]

    def _rows(self, x: jax.Array) -> jax.Array:
        return self.project(self.embed._rows(x))
