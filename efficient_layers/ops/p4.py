# SPDX-License-Identifier: Apache-2.0
"""Convolution over p4, the group of shifts and quarter turns, as one ordinary convolution.

A feature map on p4 is f[p, r]: a position and an orientation r. A quarter turn of the plane moves
both: (T f)[p, r] = f[R^-1 p, r - 1]. The convolution with a kernel k[q, r] is

    y[p, s] = sum_{q, r} f[p + q, r] k[R^-s q, r - s]

hence T(f * k) = (T f) * k, and per s an ordinary convolution with the kernel turned s times. An
image has one orientation, r = 0 only, and its k[q].
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

ORIENTATIONS = 4


def turn(f: Float[Array, "*b h w r c"], times: int = 1) -> Float[Array, "*b h2 w2 r c"]:
    """T applied `times` times: the plane turned by 90 degrees, orientations moved on.

    >>> import jax.numpy as jnp
    >>> f = jnp.arange(4.0).reshape(2, 2, 1, 1)
    >>> turn(f)[..., 0, 0].tolist()
    [[1.0, 3.0], [0.0, 2.0]]
    """
    return jnp.roll(jnp.rot90(f, times, axes=(f.ndim - 4, f.ndim - 3)), times, axis=-2)


def filter_bank(kernel: Float[Array, "k k r i o"]) -> Float[Array, "k k r*i 4*o"]:
    """The kernel in its four turns, side by side on the outputs: (s o), orientation first.

    Raises:
      ValueError: a kernel that is not square, or not of 1 or 4 orientations.
    """
    height, width, r, i, o = kernel.shape
    if height != width or r not in (1, ORIENTATIONS):
        raise ValueError(
            f"filter_bank expects a kernel of shape (k, k, 1 or 4, in, out). Got {kernel.shape}."
        )
    # k[R^-s q, r - s] is the kernel itself, as a function on (q, r), moved by T^s.
    planes = [jnp.rot90(kernel, s, axes=(0, 1)) for s in range(ORIENTATIONS)]
    turned = [jnp.roll(plane, s, axis=2) for s, plane in enumerate(planes)]
    return jnp.stack(turned, axis=4).reshape(height, width, r * i, ORIENTATIONS * o)
