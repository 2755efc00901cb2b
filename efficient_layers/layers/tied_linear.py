# SPDX-License-Identifier: Apache-2.0
"""Weight tying: a linear map with the transposed kernel of another layer."""

import jax
import jax.numpy as jnp
from flax.nnx.nn.dtypes import promote_dtype
from flax.typing import Dtype
from jaxtyping import Array, Float


def tied_linear(
    x: Float[Array, "*b d"],
    kernel: Float[Array, "o d"],
    bias: Float[Array, "o"] | None = None,
    *,
    dtype: Dtype | None = None,
) -> Float[Array, "*b o"]:
    """y = x kernel^T + bias, for a kernel that belongs to another layer.

    Logits from the token embedding: `tied_linear(x, self.embed.embedding[...])`; a decoder from its
    encoder: `tied_linear(z, self.encoder.kernel[...])`. The owner hands its array over at each
    call, so there is one Variable in the model, counted and saved once, whose gradient is the sum
    over both uses. A layer that kept a reference would alias it. `dtype` is that of the
    computation; None promotes, as nnx does.

    params = o (the bias, where given). MACs = positions x o x d.

    Reference: Press & Wolf, *Using the Output Embedding to Improve Language Models* (arXiv
    1608.05859), section 3; Inan, Khosravi & Socher, *Tying Word Vectors and Word Classifiers*
    (arXiv 1611.01462).

    >>> import jax.numpy as jnp, efficient_layers as el
    >>> el.layers.tied_linear(jnp.ones((2, 5, 8)), jnp.ones((100, 8))).shape
    (2, 5, 100)

    Raises:
      ValueError: shapes that do not fit.
      TypeError: an input of integers.
    """
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        raise TypeError(f"tied_linear expects a floating-point input. Got {x.dtype}.")
    if kernel.ndim != 2 or x.ndim < 1 or x.shape[-1] != kernel.shape[1]:
        raise ValueError(
            "tied_linear expects x of shape (*batch, d) and a kernel of shape (out, d). "
            f"Got {x.shape} and {kernel.shape}."
        )
    if bias is not None and bias.shape != kernel.shape[:1]:
        raise ValueError(
            f"tied_linear expects a bias of shape {kernel.shape[:1]}. Got {bias.shape}."
        )
    with jax.named_scope("tied_linear"):
        x, kernel, bias = promote_dtype((x, kernel, bias), dtype=dtype)
        y = jnp.einsum("...d,od->...o", x, kernel)
        return y if bias is None else y + bias.reshape((1,) * (y.ndim - 1) + (-1,))
