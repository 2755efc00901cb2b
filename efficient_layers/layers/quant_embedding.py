# SPDX-License-Identifier: Apache-2.0
"""Embedding that trains with its rows rounded to int8 or int4."""

from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jaxtyping import Array, Float, Int

from efficient_layers.layers.int_embedding import IntEmbedding
from efficient_layers.layers.lookup import Lookup, check_tokens, table_of
from efficient_layers.layers.quant_input import FakeWeight
from efficient_layers.layers.quant_spec import WEIGHT_ONLY, QuantSpec
from efficient_layers.ops.embedding import rows
from efficient_layers.ops.pack import pack


class QuantEmbedding(FakeWeight, Lookup):
    """y = q(embedding[x]): floating-point rows, rounded to codes as they are picked.

    A scale a row, symmetric, 8 or 4 bits; straight-through gradients, or steps that are learned
    (`spec.method` "lsq"). `convert()` gives the `IntEmbedding` with the same outputs. Quant-Noise
    (`spec.noise` < 1, needs `rngs` in train mode) is drawn for each token of the input, so that
    only the rows in use are rounded.

    params = num_embeddings * features + learned_steps
    MACs = 0

    Reference: Jacob et al. (arXiv 1712.05877), section 3; Fan et al., *Training with Quantization
    Noise for Extreme Model Compression* (arXiv 2004.07320), section 4. Differs from the paper: the
    noise is a token's, not a weight's.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> spec = el.layers.QuantSpec(bits=4)
    >>> el.layers.QuantEmbedding(100, 16, spec=spec, rngs=nnx.Rngs(0))(jnp.array([3, 7])).shape
    (2, 16)

    Raises:
      ValueError: a size below 1; a spec with other than 4 or 8 bits, a scale a row, symmetric
        codes and no activations; a token outside the table; no rngs where they are needed.
      TypeError: tokens of a floating type.
    """

    def __init__(
        self,
        num_embeddings: int,
        features: int,
        *,
        spec: QuantSpec = WEIGHT_ONLY,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(num_embeddings, features, dtype=dtype, param_dtype=param_dtype)
        _check(spec)
        draw = nnx.initializers.normal(features**-0.5)
        table = draw(rngs.params(), (num_embeddings, features), param_dtype)
        self.embedding = nnx.Param(table)
        self.spec = spec
        self._make_step(table, (num_embeddings, 1))
        self.deterministic = False

    @classmethod
    def from_embedding(cls, embedding: nnx.Embed, *, spec: QuantSpec = WEIGHT_ONLY) -> Self:
        """A layer that starts from `embedding`'s rows.

        Raises:
          ValueError: a spec as in the constructor.
          TypeError: `embedding` is no `nnx.Embed`.
        """
        table_of(embedding)
        sizes: Any = (embedding.num_embeddings, embedding.features)
        types: dict[str, Any] = {"dtype": embedding.dtype, "param_dtype": embedding.param_dtype}
        layer = nnx.eval_shape(lambda: cls(*sizes, spec=spec, **types, rngs=nnx.Rngs(0)))
        table = embedding.embedding[...]
        layer.embedding.set_value(table)
        layer._make_step(table, (sizes[0], 1))
        return layer

    def __call__(self, x: Int[Array, "*b"], *, rngs: Any = None) -> Float[Array, "*b d"]:
        """Tokens (*b) -> vectors (*b, features)."""
        name = type(self).__name__
        check_tokens(name, x, self.num_embeddings)
        with jax.named_scope(name):
            key = self.spec.noise_key(name, self.deterministic, rngs)
            return self._rounded(jnp.asarray(x), key)

    def convert(self) -> IntEmbedding:
        """The layer of integers with the same outputs in eval mode.

        Raises:
          ValueError: rows that are not finite.
        """
        sizes: Any = (self.num_embeddings, self.features)
        types: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        bits = self.spec.bits
        layer = nnx.eval_shape(lambda: IntEmbedding(*sizes, bits=bits, **types, rngs=nnx.Rngs(0)))
        codes, scale, _ = self.spec.codes(self.embedding[...], (sizes[0], 1), step=self._step)
        layer.codes.set_value(pack(codes, 4) if bits == 4 else codes)
        layer.scale.set_value(scale.astype(self.param_dtype))
        return layer

    def _rows(self, x: jax.Array) -> jax.Array:
        return self._rounded(x, None)

    def _rounded(self, x: jax.Array, key: jax.Array | None) -> jax.Array:
        found = rows(self.embedding[...], x).reshape(-1, self.features)
        step = None
        if self.step is not None:
            step = rows(self.step[...], x).reshape(-1, 1)
        found = self.spec.fake(found, (len(found), 1), step=step, key=key)
        return self._cast(found)[0].reshape(*x.shape, self.features)


def _check(spec: QuantSpec) -> None:
    fits = spec.method in ("affine", "lsq") and spec.bits in (4, 8)
    if not (fits and spec.symmetric and spec.granularity == "channel" and spec.activations is None):
        raise ValueError(
            'QuantEmbedding expects a spec of method "affine" or "lsq", 4 or 8 bits, granularity '
            f'"channel" (a scale a row), symmetric, without activations. Got {spec}.'
        )
