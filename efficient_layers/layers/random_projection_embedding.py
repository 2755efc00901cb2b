# SPDX-License-Identifier: Apache-2.0
"""Embedding without a table: a hash of the token, as a code of -1, 0 and 1, projected."""

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jaxtyping import Array, Float, Int

from efficient_layers.layers.lookup import check_sizes, check_tokens
from efficient_layers.ops.hashing import ternary_code


class RandomProjectionEmbedding(nnx.Module):
    """y = code(x) W + bias, code(x) in {-1, 0, 1}^code_size from the bits of a hash of (seed, x).

    There is no vocabulary: a token is any 32-bit integer, such as a checksum of a word
    (`zlib.crc32`), and a word never seen has a vector, too. Two bits of hash make one entry of the
    code, 0 half of the time. Vectors have variance 1 / features at the start, as those of
    `Embedding`. The code alone, without parameters, is `ops.hashing.ternary_code`.

    params = code_size * features + features * use_bias
    MACs = positions * code_size * features

    Reference: Kaliamoorthi, Ravi & Kozareva, *PRADO: Projection Attention Networks for Document
    Classification On-Device* (ACL anthology D19-1506), section 3; Kaliamoorthi, Siddhant, Li &
    Johnson, *Distilling Large Language Models into Tiny and Effective Students using pQRNN* (arXiv
    2101.08890). Differs from the papers: tokens are hashed, not strings, by xxHash's mixer and
    not by a fingerprint of the text; no normalisation or activation follows.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> layer = el.layers.RandomProjectionEmbedding(16, code_size=64, rngs=nnx.Rngs(0))
    >>> layer(jnp.array([3, -7, 2**31 - 1])).shape
    (3, 16)

    Raises:
      ValueError: a size below 1.
      TypeError: tokens of a floating type.
    """

    def __init__(
        self,
        features: int,
        *,
        code_size: int = 512,
        seed: int = 0,
        use_bias: bool = True,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_sizes(type(self).__name__, features=features, code_size=code_size)
        draw = nnx.initializers.normal((2 / (code_size * features)) ** 0.5)
        self.project = nnx.Linear(
            code_size,
            features,
            use_bias=use_bias,
            kernel_init=draw,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.features = features
        self.code_size = code_size
        self.seed = seed
        self.use_bias = use_bias

    def __call__(self, x: Int[Array, "*b"]) -> Float[Array, "*b d"]:
        """Tokens (*b), any integers of up to 32 bits -> vectors (*b, features)."""
        check_tokens("RandomProjectionEmbedding", x)
        with jax.named_scope("RandomProjectionEmbedding"):
            code = ternary_code(jnp.reshape(x, -1), self.code_size, seed=self.seed)
            y = self.project(code.astype(self.project.kernel[...].dtype))
            return y.reshape(*x.shape, self.features)
