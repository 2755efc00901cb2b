# SPDX-License-Identifier: Apache-2.0
"""Batch normalisation layer: a drop-in replacement of `flax.nnx.BatchNorm`."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float

from efficient_layers.ops.batch_norm import batch_norm


class BatchNorm(nnx.BatchNorm):
    """y = scale (x - mean) / sqrt(var + epsilon) + bias, a number of each a channel.

    `flax.nnx.BatchNorm` with another derivative (`efficient_layers.ops.batch_norm`: 7x faster on a
    CPU): same constructor, attributes, state and numbers. While training, mean and var are the
    batch's, in float32, and the running ones move by `running = momentum running + (1 - momentum)
    batch` (flax's convention; torch's momentum is 1 minus it). They carry no gradient.

    `unbiased_running_var=True` adds the variance with N / (N - 1) to the running one, as torch
    does; flax, and the default, take the biased variance. What normalises the batch is biased in
    both.

    params = num_features * ((1 if use_scale else 0) + (1 if use_bias else 0))
    MACs = 0

    Reference: Ioffe & Szegedy, *Batch Normalization* (arXiv 1502.03167), algorithms 1 and 2.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> el.layers.BatchNorm(4, rngs=nnx.Rngs(0))(jnp.ones((2, 8, 8, 4))).shape
    (2, 8, 8, 4)

    Raises:
      ValueError: x has not `num_features` channels.
      TypeError: x holds integers.
    """

    def __init__(self, num_features: int, *, unbiased_running_var: bool = False, **kwargs: Any):
        super().__init__(num_features, **kwargs)
        self.unbiased_running_var = unbiased_running_var

    def __call__(
        self,
        x: Float[Array, "..."],
        use_running_average: bool | None = None,
        *,
        mask: Bool[Array, "..."] | None = None,
    ) -> Float[Array, "..."]:
        """x of any rank with `num_features` on `axis`; the result has its shape."""
        self._check(x)
        stored = self.use_running_average if use_running_average is None else use_running_average
        with jax.named_scope("BatchNorm"):
            if stored is not False or jnp.iscomplexobj(x) or not isinstance(self.axis, int):
                return super().__call__(x, use_running_average, mask=mask)
            return self._train(x, mask)

    def _train(self, x, mask):
        scale = None if self.scale is None else self.scale[...]
        bias = None if self.bias is None else self.bias[...]
        x, scale, bias = self.promote_dtype((x, scale, bias), dtype=self.dtype)
        y, mean, var = batch_norm(
            x,
            scale,
            bias,
            epsilon=self.epsilon,
            axis=self.axis,
            mask=mask,
            axis_name=self.axis_name,
            axis_index_groups=self.axis_index_groups,
            fast_variance=self.use_fast_variance,
        )
        if self.unbiased_running_var:
            var = var * self._correction(x, mask)
        for running, batch in ((self.mean, mean), (self.var, var)):
            moved = self.momentum * running[...] + (1 - self.momentum) * batch
            # `running[...] = ` asks a traced value for its sharding: 0.7 of the 1.7 s in which
            # MobileNetV2's gradient is traced.
            running.set_value(lax.stop_gradient(moved).astype(running.dtype))
        return y

    def _correction(self, x, mask):
        """N / (N - 1) for the N positions that were counted, on all devices."""
        n = x.size // self.num_features
        if mask is not None:
            n = jnp.broadcast_to(mask, x.shape).sum() / self.num_features
        if self.axis_name is not None:
            n = lax.psum(n, self.axis_name, axis_index_groups=self.axis_index_groups)
        return n / jnp.maximum(n - 1, 1)

    def _check(self, x):
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            raise TypeError(f"BatchNorm expects a floating-point input. Got {x.dtype}.")
        if isinstance(self.axis, int) and x.shape[self.axis] != self.num_features:
            raise ValueError(
                f"BatchNorm expects {self.num_features} channels on axis {self.axis}. "
                f"Got an input of shape {x.shape}."
            )
