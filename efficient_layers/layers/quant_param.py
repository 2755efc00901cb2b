# SPDX-License-Identifier: Apache-2.0
"""Variables of quantised layers: integers that stand for weights, and what scales them."""

from typing import Any

from flax import nnx


class QuantParam(nnx.Variable):
    """Integer weights: saved with the model, never differentiated, counted in `params`.

    `nnx.split(model, nnx.Param, ...)` leaves them in the rest, so no optimiser sees them. Where
    several weights share a byte, `logical_shape` says of what array the value is the packed form;
    `el.measure.cost` then counts that array's elements, and the bytes as they are stored. So a
    float model and its integer twin have equal `params`.

    >>> import jax.numpy as jnp, efficient_layers as el
    >>> packed = jnp.zeros((384, 768), jnp.uint8)  # int4, two a byte
    >>> el.layers.QuantParam(packed, logical_shape=(768, 768)).get_metadata("logical_shape")
    (768, 768)
    """

    def __init__(self, value: Any, *, logical_shape: tuple[int, ...] | None = None, **kwargs: Any):
        super().__init__(value, logical_shape=logical_shape, **kwargs)


class QuantScale(nnx.Variable):
    """Scales and zero points of integers: saved, not trained, in the bytes but not in `params`."""
