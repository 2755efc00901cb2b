# SPDX-License-Identifier: Apache-2.0
"""The type in which sums are added up."""

from typing import Any

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
