# SPDX-License-Identifier: Apache-2.0
"""The input side of quantised layers: ranges while training, int8 codes afterwards."""

from math import pi, sqrt
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from efficient_layers.layers.quant_param import QuantScale
from efficient_layers.layers.quant_spec import ACTIVATION_BITS, QuantRange, QuantSpec
from efficient_layers.ops.lsq import lsq, lsq_step
from efficient_layers.ops.precision import float32_or_wider
from efficient_layers.ops.quantize import (
    code_range,
    fake_quantize,
    quantize,
    scale_and_zero_point,
    value_range,
)

_TOP = code_range(ACTIVATION_BITS)[1]
Scale = tuple[jax.Array, jax.Array | None]


class FakeWeight:
    """The learned step sizes of a layer with float weights; mixed into it.

    `step` is a Param with method "lsq", else None; `learned_steps` counts these and the input's.
    """

    spec: QuantSpec
    step: Any
    learned_steps: int

    def _make_step(self, weight: jax.Array, parts: tuple[int, ...]) -> None:
        first = self.spec.first_step(weight, parts)
        self.step = nnx.data(None) if first is None else nnx.Param(first)
        steps = (self.step, getattr(self, "input_step", None))
        self.learned_steps = sum(s[...].size for s in steps if s is not None)

    @property
    def _step(self) -> jax.Array | None:
        return None if self.step is None else self.step[...]


class FakeInput(FakeWeight):
    """What a layer with float weights adds to quantise its input too; mixed into it.

    Static: `input_low` and `input_high`, both 0 until a batch was seen; with method "lsq" a
    trained `input_step` instead, which begins as for an input of variance 1.
    """

    spec: QuantSpec
    deterministic: bool
    input_low: Any
    input_high: Any
    input_step: Any

    def calibrate(self, x: jax.Array) -> None:
        """Takes the static range (or the learned step's first value) from `x` alone.

        Raises:
          ValueError: the layer's activations are not static; `x` is not finite.
          TypeError: `x` holds integers.
        """
        if self.spec.activations != "static":
            raise ValueError(
                'calibrate expects a layer with activations="static". '
                f"Got activations={self.spec.activations!r}."
            )
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(f"calibrate expects a floating-point input. Got {x.dtype}.")
        if not bool(jnp.isfinite(x).all()):
            raise ValueError(f"calibrate expects finite values. Got NaN or inf in {x.shape}.")
        if self.input_step is not None:
            step = lsq_step(x, (1,) * x.ndim, bits=ACTIVATION_BITS).reshape(())
            self.input_step.set_value(step.astype(self.input_step[...].dtype))
        else:
            low, high = self._batch_range(x)
            self.input_low.set_value(low)
            self.input_high.set_value(high)

    def input_scale(self) -> Scale:
        """Scale and zero point of a static input, as they stand.

        Raises:
          ValueError: nothing was seen yet.
        """
        if self.input_step is not None:
            return self.input_step[...].astype(jnp.float32), None
        low, high = self.input_low[...], self.input_high[...]
        empty = jnp.maximum(high, 0) <= jnp.minimum(low, 0)
        if not isinstance(empty, jax.core.Tracer) and bool(empty):
            raise ValueError(
                f'{type(self).__name__} with activations="static" expects a range of its inputs. '
                "Got none yet: call it on data in train mode, or call calibrate(x)."
            )
        scale, zero_point = _int8_scale(low, high, self.spec)
        return jnp.where(empty, jnp.nan, scale), zero_point  # under jit nobody can raise

    def _make_input(self, param_dtype: Dtype) -> None:
        self.input_low = self.input_high = self.input_step = nnx.data(None)
        if self.spec.activations == "static" and self.spec.method == "lsq":
            first = 2 * sqrt(2 / pi) / sqrt(_TOP)
            self.input_step = nnx.Param(jnp.full((), first, param_dtype))
        elif self.spec.activations == "static":
            self.input_low = QuantRange(jnp.zeros(()))
            self.input_high = QuantRange(jnp.zeros(()))

    def _fake_input(self, x: jax.Array, parts: tuple[int, ...]) -> jax.Array:
        """`x` rounded to int8 codes and back; `parts`: the shape of a dynamic scale."""
        if self.spec.activations is None:
            return x
        if self.spec.activations == "dynamic":
            scale, zero_point = _dynamic_scale(x, parts, self.spec)
        elif self.input_step is not None:
            return lsq(x, self.input_step[...].reshape((1,) * x.ndim), bits=ACTIVATION_BITS)
        else:
            if not self.deterministic and x.size:
                self._see(x)
            scale, zero_point = _of_rank(self.input_scale(), x.ndim)
        return fake_quantize(x, scale, zero_point, bits=ACTIVATION_BITS)

    def _see(self, x: jax.Array) -> None:
        before = (self.input_low[...], self.input_high[...])
        first = before[0] == before[1]
        for end, old, new in zip(
            (self.input_low, self.input_high), before, self._batch_range(x), strict=True
        ):
            kept = self.spec.momentum
            moved = kept * old + (1 - kept) * new.astype(old.dtype)
            end.set_value(jnp.where(first, new.astype(old.dtype), moved))

    def _batch_range(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = jax.lax.stop_gradient(x.astype(float32_or_wider(x.dtype)))
        if self.spec.percentile == 100:
            return x.min(), x.max()
        ends = jnp.asarray([100 - self.spec.percentile, self.spec.percentile], x.dtype)
        low, high = jnp.percentile(x, ends)
        return low, high


class IntInput:
    """What a layer of integer weights adds to make int8 codes of its input; mixed into it."""

    spec: QuantSpec
    input_scale: Any
    input_zero_point: Any

    def _make_input(self, scale: Scale | None = None) -> None:
        """`scale`: of a static input; not known yet (None), it is NaN, and so is the output."""
        self.input_scale = self.input_zero_point = nnx.data(None)
        if self.spec.activations != "static":
            return
        if scale is None:
            least = code_range(ACTIVATION_BITS, symmetric=False)[0]
            scale = jnp.full((), jnp.nan), jnp.full((), least, jnp.int8)
        self.input_scale = QuantScale(scale[0])
        if scale[1] is not None and not self.spec.symmetric_activations:
            self.input_zero_point = QuantScale(scale[1])

    def _input_codes(
        self, x: jax.Array, parts: tuple[int, ...]
    ) -> tuple[jax.Array, jax.Array, jax.Array | None]:
        """int8 codes of `x`, their scale and zero point, both of x's rank."""
        least = None
        if self.spec.activations == "dynamic":
            scale, zero_point = _dynamic_scale(x, parts, self.spec)
        else:
            zero = self.input_zero_point
            static = self.input_scale[...], None if zero is None else zero[...]
            scale, zero_point = _of_rank(static, x.ndim)
            if self.spec.method == "lsq":
                least = code_range(ACTIVATION_BITS, symmetric=False)[0]
        codes = quantize(x, scale, zero_point, bits=ACTIVATION_BITS, least=least)
        return codes, scale, zero_point


def _dynamic_scale(x: jax.Array, parts: tuple[int, ...], spec: QuantSpec) -> Scale:
    x = jax.lax.stop_gradient(x.astype(float32_or_wider(x.dtype)))
    if spec.symmetric_activations:
        _, high = value_range(jnp.abs(x), parts)
        low = -high
    else:
        low, high = value_range(x, parts)
    return _int8_scale(low.reshape(parts), high.reshape(parts), spec)


def _int8_scale(low: jax.Array, high: jax.Array, spec: QuantSpec) -> Scale:
    return scale_and_zero_point(
        low, high, bits=ACTIVATION_BITS, symmetric=spec.symmetric_activations
    )


def _of_rank(static: Scale, rank: int) -> Scale:
    scale, zero_point = static
    ones = (1,) * rank
    return scale.reshape(ones), None if zero_point is None else zero_point.reshape(ones)
