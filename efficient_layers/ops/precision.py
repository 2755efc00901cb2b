# SPDX-License-Identifier: Apache-2.0
"""The type in which sums are added up."""

from typing import Any

import jax
import jax.numpy as jnp


def float32_or_wider(dtype: Any) -> Any:
    """float32, or `dtype` itself where that holds more.

    `jnp.promote_types(dtype, float32)` says the same, but refuses bfloat16 under
    `jax.numpy_dtype_promotion("strict")`, where an explicit `astype` is allowed.

    >>> import jax.numpy as jnp
    >>> float32_or_wider(jnp.bfloat16).__name__
    'float32'
    """
    return dtype if jnp.finfo(dtype).bits > 32 else jnp.float32


def result_dtype(dtype: Any, *arrays: jax.Array) -> Any:
    """The type a layer computes in: `dtype`, or where that is None the promotion of `arrays`."""
    return jnp.dtype(dtype) if dtype is not None else jnp.result_type(*arrays)


def add_bias(y: jax.Array, bias: jax.Array | None) -> jax.Array:
    """y + bias in y's type, the bias on the last axis; y where there is none."""
    return y if bias is None else y + bias.astype(y.dtype).reshape((1,) * (y.ndim - 1) + (-1,))
