# SPDX-License-Identifier: Apache-2.0
"""Softmax attention approximated through a few landmarks (Nystrom's method)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from flax.typing import Dtype

from efficient_layers.layers.projected_heads import ProjectedHeads
from efficient_layers.ops.conv import conv_general_dilated
from efficient_layers.ops.landmarks import nystrom_attention


class NystromAttention(ProjectedHeads):
    """y = softmax(q k~') pinv(softmax(q~ k~')) softmax(q~ k') v + conv(v), a head.

    (*b, n, d) -> (*b, n, d); all products of queries and keys are divided by sqrt(head_dim). The
    landmarks q~ and k~ are means of `num_landmarks` segments of the sequence, so weights are n x
    landmarks; the pseudo-inverse is `iterations` of products. With n landmarks it is softmax
    attention. Where n is no multiple, segments are of ceil(n / num_landmarks) positions, the last
    one shorter. `kernel_size` (odd) adds the paper's skip: a convolution of the values along the
    sequence, one filter a head, `conv` of (kernel_size, num_heads). Not causal. Softmax and
    pseudo-inverse are in float32 at the least.

    inner = num_heads * head_dim
    m = ceil(n / ceil(n / num_landmarks))
    weights = n * m * 4 + m * m
    inverse = iterations * 4 * m ** 3
    groups = positions // n
    taps = kernel_size or 0
    params = 4 * d * inner + (3 * inner + d) * use_bias + taps * num_heads
    attention = num_heads * (head_dim * (weights + m * m) + inverse)
    MACs = groups * (n * inner * (4 * d + taps) + attention)

    Differs from the paper: the inverse starts from each matrix's own norm, which converges faster
    and lets no example change another's result (the authors take the largest of the batch).

    Reference: Xiong et al., *Nystromformer: A Nystrom-Based Algorithm for Approximating
    Self-Attention* (arXiv 2102.03902), sections 3.1 and 3.2, equations 11 to 14.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> layer = el.layers.NystromAttention(8, 2, num_landmarks=4, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((1, 16, 8))).shape
    (1, 16, 8)

    Raises:
      ValueError: num_heads that do not divide in_features without a head_dim; num_landmarks or
        iterations below 1; an even kernel_size; an input of other features or without a position
        axis.
      TypeError: an input of integers.
    """

    def __init__(
        self,
        in_features: int,
        num_heads: int,
        *,
        num_landmarks: int = 64,
        iterations: int = 6,
        kernel_size: int | None = None,
        head_dim: int | None = None,
        use_bias: bool = True,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            in_features,
            num_heads,
            head_dim=head_dim,
            use_bias=use_bias,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        _check(num_landmarks, iterations, kernel_size)
        self.num_landmarks = num_landmarks
        self.iterations = iterations
        self.kernel_size = kernel_size
        self.conv: Any = nnx.data(None)
        if kernel_size is not None:
            draw = nnx.initializers.normal(kernel_size**-0.5)
            self.conv = nnx.Param(draw(rngs.params(), (kernel_size, num_heads), param_dtype))

    def _mix(self, x: jax.Array, state: None) -> tuple[jax.Array, None]:
        q, k, v = self._all_heads(x)
        sizes = {"landmarks": self.num_landmarks, "iterations": self.iterations}
        y = nystrom_attention(q, k, v, **sizes)
        return (y if self.conv is None else y + self._skip(v)), None

    def _skip(self, v: jax.Array) -> jax.Array:
        """Each head's filter along the sequence, (b, h, n, head_dim) as it is."""
        b, h, n, d = v.shape
        v, taps = promote_dtype((v, self.conv[...]), dtype=self.dtype)
        kernel = jnp.repeat(taps, d, -1)[:, None, :]  # k 1 (h d)
        low = kernel.shape[0] // 2
        y = conv_general_dilated(
            v.swapaxes(1, 2).reshape(b, n, h * d),
            kernel,
            window_strides=(1,),
            padding=[(low, low)],
            dimension_numbers=("NHC", "HIO", "NHC"),
            feature_group_count=h * d,
        )
        return y.reshape(b, n, h, d).swapaxes(1, 2)


def _check(landmarks: int, iterations: int, kernel_size: int | None) -> None:
    if min(landmarks, iterations) < 1:
        raise ValueError(
            "NystromAttention expects num_landmarks and iterations of at least 1. Got "
            f"num_landmarks={landmarks}, iterations={iterations}."
        )
    if kernel_size is not None and (kernel_size < 1 or kernel_size % 2 == 0):
        raise ValueError(f"NystromAttention expects an odd kernel_size. Got {kernel_size}.")
