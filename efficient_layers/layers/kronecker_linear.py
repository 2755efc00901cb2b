# SPDX-License-Identifier: Apache-2.0
"""Linear layer whose kernel is a sum of Kronecker products of small matrices."""

from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.typing import Dtype

from efficient_layers.layers.dense import Dense, kernel_of
from efficient_layers.ops.kronecker import kronecker

Pair = tuple[int, int]


class KroneckerLinear(Dense):
    """y = x (sum_t left[t] kron right[t]) + bias, computed as small products.

    `left_features = (i, o)` is the shape of the left factors; the right ones are (in / i, out / o).
    With x and y as matrices X (i, in / i) and Y (o, out / o), Y = sum_t left[t]^T X right[t], so
    the large kernel never exists. The cheaper of the two orders of products is taken. One term
    of square factors has 2 in weights instead of in^2. Factors are drawn so that outputs keep the
    input's variance.

    `from_linear` is the nearest such kernel in the Frobenius norm (Van Loan & Pitsianis 1993):
    rearranged, a Kronecker product is a matrix of rank one, and a singular value decomposition
    finds the best of rank `terms`.

    i, o = left_features
    right = (in_features // i) * (out_features // o)
    right_first = in_features * out_features // o + i * out_features
    left_first = in_features * o + in_features // i * out_features
    params = terms * (i * o + right) + out_features * use_bias
    MACs = positions * terms * min(right_first, left_first)

    Reference: Van Loan & Pitsianis, *Approximation with Kronecker Products*, 1993; Zhang et al.,
    *Beyond Fully-Connected Layers with Quaternions: Parameterization of Hypercomplex
    Multiplications with 1/n Parameters* (arXiv 2102.08597), section 3, for sums of terms.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> layer = el.layers.KroneckerLinear(8, 6, left_features=(4, 3), rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((3, 8))).shape
    (3, 6)

    Raises:
      ValueError: left_features that do not divide the sizes; terms outside 1 ... the number at
        which every kernel is such a sum; an input whose last axis is not in_features.
      TypeError: an input of integers.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        left_features: Pair,
        terms: int = 1,
        use_bias: bool = True,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            in_features, out_features, use_bias=use_bias, dtype=dtype, param_dtype=param_dtype
        )
        right_features = _right((in_features, out_features), left_features, terms)
        # The variance of a product is the product of the variances; terms add theirs.
        draw = nnx.initializers.lecun_normal(batch_axis=0)
        keys = rngs.params(), rngs.params()
        left = draw(keys[0], (terms, *left_features), param_dtype) / terms**0.5
        self.left = nnx.Param(left.astype(param_dtype))
        self.right = nnx.Param(draw(keys[1], (terms, *right_features), param_dtype))
        self.left_features = tuple(left_features)
        self.right_features = right_features
        self.terms = terms

    @classmethod
    def from_linear(cls, linear: nnx.Linear, *, left_features: Pair, terms: int = 1) -> Self:
        """The nearest sum of `terms` Kronecker products; exact where `linear`'s kernel is one.

        Raises:
          ValueError: left_features or terms as in the constructor.
          TypeError: `linear` is no `nnx.Linear`.
        """
        kernel = kernel_of(linear)
        (i, o), (p, q) = left_features, _right(kernel.shape, left_features, terms)
        rearranged = kernel.reshape(i, p, o, q).transpose(0, 2, 1, 3).reshape(i * o, p * q)
        left, values, right = np.linalg.svd(rearranged, full_matrices=False)
        root = np.sqrt(values[:terms, None])
        factors = {
            "left": (root * left.T[:terms]).reshape(terms, i, o),
            "right": (root * right[:terms]).reshape(terms, p, q),
        }
        return cls._like(linear, factors, left_features=left_features, terms=terms)

    def _weights(self) -> tuple[jax.Array, ...]:
        return self.left[...], self.right[...]

    def _map(self, rows: jax.Array, left: jax.Array, right: jax.Array) -> jax.Array:
        return kronecker(rows, left, right)

    def _kernel(self, left: jax.Array, right: jax.Array) -> jax.Array:
        return jax.vmap(jnp.kron)(left, right).sum(0)


def _right(sizes: tuple[int, ...], left: Pair, terms: int) -> Pair:
    """Shape of the right factors."""
    if len(left) != 2 or min(left) < 1 or any(n % k for n, k in zip(sizes, left, strict=True)):
        raise ValueError(
            f"KroneckerLinear expects left_features that divide {tuple(sizes)}. Got {left}."
        )
    right = sizes[0] // left[0], sizes[1] // left[1]
    most = min(left[0] * left[1], right[0] * right[1])
    if not 1 <= terms <= most:
        raise ValueError(
            f"KroneckerLinear expects terms from 1 to {most}, which make every kernel of factors "
            f"{tuple(left)} and {right}. Got {terms}."
        )
    return right
