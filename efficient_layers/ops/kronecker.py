# SPDX-License-Identifier: Apache-2.0
"""Product with a sum of Kronecker products, without the large matrix."""

from jaxtyping import Array, Float


def kronecker(
    x: Float[Array, "n d"], left: Float[Array, "t i o"], right: Float[Array, "t p q"]
) -> Float[Array, "n e"]:
    """y[n, o q] = sum_{t, i, p} x[n, i p] left[t, i, o] right[t, p, q], d = i p and e = o q.

    Two matrix products, in the order with fewer multiplications.
    """
    (_, i, o), (_, p, q) = left.shape, right.shape
    x = x.reshape(-1, i, p)
    if i * p * q + i * o * q <= i * p * o + p * o * q:
        return _right_first(x, left, right)
    return _right_first(x.swapaxes(1, 2), right, left, swapped=True)


def _right_first(x, left, right, *, swapped=False):
    (t, i, o), (_, p, q) = left.shape, right.shape
    h = x.reshape(-1, p) @ right.swapaxes(0, 1).reshape(p, t * q)  # (n i) (t q)
    h = h.reshape(-1, i, t, q).transpose(0, 3, 2, 1).reshape(-1, t * i)  # (n q) (t i)
    y = (h @ left.reshape(t * i, o)).reshape(-1, q, o)
    return (y if swapped else y.swapaxes(1, 2)).reshape(-1, o * q)
