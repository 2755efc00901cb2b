# SPDX-License-Identifier: Apache-2.0
"""How a layer is quantised: one settings object for all of them, and what it does to weights."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx

from efficient_layers.layers.dropout import dropout_key
from efficient_layers.ops.binary import binary, binary_codes, ternary, ternary_codes
from efficient_layers.ops.lsq import lsq, lsq_step
from efficient_layers.ops.pack import stored_width
from efficient_layers.ops.precision import float32_or_wider
from efficient_layers.ops.quant_noise import quant_noise
from efficient_layers.ops.quantize import (
    code_range,
    fake_quantize,
    quantize,
    scale_and_zero_point,
    value_range,
)

Granularity = Literal["tensor", "channel", "group"]
Activations = Literal["dynamic", "static"]
Method = Literal["affine", "lsq", "binary", "ternary"]
Codes = tuple[jax.Array, jax.Array, jax.Array | None]
ACTIVATION_BITS = 8


@dataclass(frozen=True)
class QuantSpec:
    """Settings of `QuantLinear`, `QuantConv`, `QuantEmbedding` and their integer twins.

    Attributes:
      bits: of a weight; 1 for method "binary", 2 for "ternary", else 2 to 8.
      granularity: whose scale is its own: the whole weight's, an output channel's (an embedding's
        row's), or that of `group_size` neighbouring inputs of an output channel.
      group_size: for granularity "group"; has to divide the inputs.
      symmetric: weights from -(2^(bits-1) - 1) on and no zero point; False: a zero point.
      activations: None leaves the input in floating point (weight-only). "dynamic" takes an int8
        scale of every row (linear) or example (convolution) at each call, "static" one for all,
        from ranges that the layer collects in train mode.
      symmetric_activations: no zero point for the input either.
      method: "affine"; "lsq" learns the steps (arXiv 1902.08153), the input's too where static;
        "binary" (arXiv 1603.05279) and "ternary" (arXiv 1605.04711).
      noise: share of the weights that a forward pass quantises while training. Below 1 it is
        Quant-Noise (arXiv 2004.07320), and calls in train mode need `rngs`.
      momentum: of the static range, running = momentum running + (1 - momentum) batch; the first
        batch is taken as it is.
      percentile: of a batch's values that the static range holds at each end; 100: all.

    Raises:
      ValueError: a setting out of range, or two that exclude each other.
    """

    bits: int = 8
    granularity: Granularity = "channel"
    group_size: int | None = None
    symmetric: bool = True
    activations: Activations | None = None
    symmetric_activations: bool = True
    method: Method = "affine"
    noise: float = 1.0
    momentum: float = 0.99
    percentile: float = 100.0

    def __post_init__(self) -> None:
        for name, known in (
            ("granularity", get_args(Granularity)),
            ("activations", (*get_args(Activations), None)),
            ("method", get_args(Method)),
        ):
            if getattr(self, name) not in known:
                got = getattr(self, name)
                raise ValueError(f"QuantSpec expects {name} to be one of {known}. Got {got!r}.")
        self._check_bits()
        self._check_groups()
        self._check_numbers()
        if not self.symmetric and self.method != "affine":
            raise ValueError(
                f'QuantSpec expects symmetric=True with method="{self.method}", which has no zero '
                "point. Got symmetric=False."
            )

        if self.method == "lsq" and self.activations == "static" and not self.symmetric_activations:
            raise ValueError(
                'QuantSpec expects symmetric_activations=True with method="lsq" and static '
                "activations: a step is learned, no zero point. Got symmetric_activations=False."
            )

    def _check_bits(self) -> None:
        known = {"binary": (1,), "ternary": (2,)}.get(self.method, tuple(range(2, 9)))
        if self.bits not in known or isinstance(self.bits, bool):
            wanted = f"{known[0]}" if len(known) == 1 else f"from {known[0]} to {known[-1]}"
            raise ValueError(
                f'QuantSpec with method="{self.method}" expects bits {wanted}. Got {self.bits}.'
            )

    def _check_groups(self) -> None:
        if (self.granularity == "group") != (self.group_size is not None):
            raise ValueError(
                'QuantSpec expects a group_size with granularity="group", and only then. '
                f'Got granularity="{self.granularity}", group_size={self.group_size}.'
            )
        if self.group_size is not None and self.group_size < 1:
            raise ValueError(
                f"QuantSpec expects a group_size of at least 1. Got {self.group_size}."
            )

    def _check_numbers(self) -> None:
        if not 0 < self.noise <= 1:
            raise ValueError(
                "QuantSpec expects noise, the share of weights quantised, in (0, 1]. "
                f"Got {self.noise}."
            )
        if not 0 <= self.momentum < 1:
            raise ValueError(f"QuantSpec expects a momentum in [0, 1). Got {self.momentum}.")
        if not 50 < self.percentile <= 100:
            raise ValueError(f"QuantSpec expects a percentile in (50, 100]. Got {self.percentile}.")

    @property
    def width(self) -> int:
        """Bits that a weight takes as it is stored: 1, 2, 4 or 8."""
        return stored_width(self.bits)

    def scale_shape(self, shape: tuple[int, ...], *, channel: int, inputs: int) -> tuple[int, ...]:
        """The shape of a scale of weights of `shape`, with these axes of channels and inputs.

        Raises:
          ValueError: groups that do not divide the inputs.
        """
        sizes = [1] * len(shape)
        if self.granularity != "tensor":
            sizes[channel] = shape[channel]
        if self.group_size is not None:
            if shape[inputs] % self.group_size:
                raise ValueError(
                    f"Quantisation in groups expects a group_size that divides the "
                    f"{shape[inputs]} inputs. Got {self.group_size}."
                )
            sizes[inputs] = shape[inputs] // self.group_size
        return tuple(sizes)

    def fake(
        self, w: jax.Array, shape: tuple[int, ...], *, step: jax.Array | None, key: Any = None
    ) -> jax.Array:
        """`w` rounded to codes and back, differentiable; `key`, if any, draws which entries."""
        if step is not None:
            quantised = lsq(w, step, bits=self.bits)
        elif self.method == "affine":
            scale, zero_point = self._scale(w, shape)
            quantised = fake_quantize(w, scale, zero_point, bits=self.bits)
        else:
            wide = w.astype(float32_or_wider(w.dtype))
            form = binary if self.method == "binary" else ternary
            quantised = form(wide, shape).astype(w.dtype)
        return quantised if key is None else quant_noise(w, quantised, key, self.noise)

    def first_step(self, w: jax.Array, shape: tuple[int, ...]) -> jax.Array | None:
        """Where the learned step sizes of `w` begin; None for methods that learn none."""
        return lsq_step(w, shape, bits=self.bits) if self.method == "lsq" else None

    def codes(self, w: jax.Array, shape: tuple[int, ...], *, step: jax.Array | None) -> Codes:
        """int8 codes (not packed), scale and zero point (None: 0) of `w`.

        Raises:
          ValueError: `w` is at hand and not finite.
        """
        w = w.astype(float32_or_wider(w.dtype))
        if not isinstance(w, jax.core.Tracer) and not bool(jnp.isfinite(w).all()):
            raise ValueError(f"Quantisation expects finite weights. Got NaN or inf in {w.shape}.")
        if step is not None:
            step, least = step.astype(w.dtype), code_range(self.bits, symmetric=False)[0]
            return quantize(w, step, bits=self.bits, least=least), step, None
        if self.method == "affine":
            scale, zero_point = self._scale(w, shape)
            return quantize(w, scale, zero_point, bits=self.bits), scale, zero_point
        return (*(binary_codes if self.method == "binary" else ternary_codes)(w, shape), None)

    def noise_key(self, name: str, deterministic: bool, rngs: Any) -> jax.Array | None:
        """The key that draws what Quant-Noise leaves alone; None where all is quantised.

        Raises:
          ValueError: one is needed and `rngs` is None.
        """
        if deterministic or self.noise == 1:
            return None
        return dropout_key(rngs, f"{name} with noise={self.noise}")

    def _scale(self, w: jax.Array, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array | None]:
        wide = jax.lax.stop_gradient(w.astype(float32_or_wider(w.dtype)))
        low, high = value_range(wide, shape)
        return scale_and_zero_point(
            low.reshape(shape), high.reshape(shape), bits=self.bits, symmetric=self.symmetric
        )


WEIGHT_ONLY = QuantSpec()


class QuantRange(nnx.BatchStat):
    """An end of the range of a layer's inputs, collected while training."""
