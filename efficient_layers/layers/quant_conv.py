# SPDX-License-Identifier: Apache-2.0
"""Convolutions of quantised weights: one that trains, and its twin that stores integers."""

from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from efficient_layers.layers.int_weight import IntWeight
from efficient_layers.layers.quant_input import FakeInput, IntInput, Scale
from efficient_layers.layers.quant_spec import WEIGHT_ONLY, Codes, QuantSpec
from efficient_layers.layers.quantised_conv import QuantisedConv, examples, sizes_of
from efficient_layers.ops.int_dot import int_conv
from efficient_layers.ops.precision import float32_or_wider, result_dtype
from efficient_layers.ops.quantize import dequantize


class QuantConv(FakeInput, QuantisedConv):
    """y = q(x) * q(kernel) + bias: floating-point weights, rounded to codes at every call.

    A `QuantLinear` for convolutions, any number of spatial axes, channels last; a dynamic scale of
    the input is an example's. `convert()` gives the `IntConv` with the same outputs. Depthwise and
    grouped convolutions too; granularity "group" is refused, and so is a zero point where the
    integer product has no place for it.

    weights = prod(kernel_size) * in_features // feature_group_count * out_features
    params = weights + out_features * use_bias + learned_steps
    MACs = positions * weights

    A call with spec.noise < 1 needs `rngs` in train mode.

    Reference: Jacob et al., *Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference* (arXiv 1712.05877), section 3.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> spec = el.layers.QuantSpec(activations="dynamic")
    >>> layer = el.layers.QuantConv(3, 8, (3, 3), 2, spec=spec, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((1, 9, 9, 3))).shape
    (1, 5, 5, 8)

    Raises:
      ValueError: sizes, groups or padding as in `nnx.Conv`; a spec that the integers cannot follow;
        an input of wrong rank or channels; no rngs where they are needed; static activations
        without a range.
      TypeError: an input of integers.
    """

    def _take(self, kernel: jax.Array) -> None:
        self.kernel = nnx.Param(kernel)
        self.deterministic = False
        self._make_input(self.param_dtype)
        self._make_step(kernel, self._parts)

    @classmethod
    def from_conv(cls, conv: nnx.Conv, *, spec: QuantSpec = WEIGHT_ONLY) -> Self:
        """A layer that starts from `conv`'s weights.

        Raises:
          ValueError: what `conv` has and this layer has not (circular padding, masks, dilated
            inputs); a spec that the integers cannot follow.
          TypeError: `conv` is no `nnx.Conv`.
        """
        layer = nnx.eval_shape(lambda: cls(**sizes_of(conv), spec=spec, rngs=nnx.Rngs(0)))
        kernel = conv.kernel[...]
        layer.kernel.set_value(kernel)
        if conv.bias is not None:
            layer.bias.set_value(conv.bias[...])
        layer._make_input(conv.param_dtype)
        layer._make_step(kernel, layer._parts)
        return layer

    def __call__(
        self, x: Float[Array, "*b h w c"], *, rngs: Any = None
    ) -> Float[Array, "*b h2 w2 o"]:
        """(*b, *spatial, in) -> (*b, *spatial', out)."""
        rows = self._batched(x)
        kernel = self.kernel[...]
        dtype = result_dtype(self.dtype, x, kernel)
        with jax.named_scope(type(self).__name__):
            key = self.spec.noise_key(type(self).__name__, self.deterministic, rngs)
            kernel = self.spec.fake(kernel, self._parts, step=self._step, key=key).astype(dtype)
            rows = self._fake_input(rows, examples(rows)).astype(dtype)
            return self._finish(self._float_conv(rows, kernel), x, dtype)

    def nearest(self) -> Codes:
        """int8 codes of the kernel, rounded to nearest; scale and zero point (None: 0).

        Raises:
          ValueError: weights that are not finite.
        """
        return self.spec.codes(self.kernel[...], self._parts, step=self._step)

    def convert(self, weight: Codes | None = None) -> "IntConv":
        """The layer of integers with the same outputs in eval mode.

        Args:
          weight: codes chosen otherwise, in place of `nearest()`, with their scale and zero point.

        Raises:
          ValueError: static activations without a range; weights that are not finite.
        """
        static = self.input_scale() if self.spec.activations == "static" else None
        weight = self.nearest() if weight is None else weight
        return IntConv._of(self._settings(), self.bias, self.spec, weight, static)


class IntConv(IntInput, IntWeight, QuantisedConv):
    """y = x * W + bias with the kernel stored as integers: scale (codes - zero_point).

    An `IntLinear` for convolutions: with `spec.activations` None the kernel is made floats at each
    call and a convolution of floats runs, else x becomes int8 and a convolution of int8 runs, exact
    in int32, padded with the code of 0. Made by `QuantConv.convert` or `from_conv`; the constructor
    quantises random weights, and its static input scale is NaN until one is set.

    weights = prod(kernel_size) * in_features // feature_group_count * out_features
    params = weights + out_features * use_bias
    MACs = positions * weights

    Reference: Jacob et al., *Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference* (arXiv 1712.05877), section 2.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> spec = el.layers.QuantSpec(activations="dynamic")
    >>> layer = el.layers.IntConv(3, 8, (3, 3), 2, spec=spec, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((1, 9, 9, 3))).shape
    (1, 5, 5, 8)

    Raises:
      ValueError: sizes, groups or padding as in `nnx.Conv`; a spec that the integers cannot follow;
        an input of wrong rank or channels.
      TypeError: an input of integers.
    """

    def _take(self, kernel: jax.Array) -> None:
        step = self.spec.first_step(kernel, self._parts)
        self._store(self.spec.codes(kernel, self._parts, step=step))
        self._make_input()

    @classmethod
    def from_conv(cls, conv: nnx.Conv, *, spec: QuantSpec = WEIGHT_ONLY) -> Self:
        """`conv` with its kernel rounded: quantisation after training, without data.

        Raises:
          ValueError: static activations, which need `QuantConv` and its calibration; what
            `QuantConv.from_conv` refuses; weights that are not finite.
          TypeError: `conv` is no `nnx.Conv`.
        """
        if spec.activations == "static":
            raise ValueError(
                'IntConv.from_conv expects activations "dynamic" or None. Got "static": use '
                "QuantConv.from_conv(...), calibrate(x), then convert()."
            )
        trained = QuantConv.from_conv(conv, spec=spec)
        return cls._of(trained._settings(), trained.bias, spec, trained.nearest(), None)

    def __call__(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b h2 w2 o"]:
        """(*b, *spatial, in) -> (*b, *spatial', out)."""
        rows = self._batched(x)
        held = jnp.dtype(self.param_dtype) if self.bias is None else self.bias[...].dtype
        dtype = result_dtype(self.dtype, x, jnp.zeros((), held))
        with jax.named_scope(type(self).__name__):
            if self.spec.activations is None:
                zero_point = self._stored_zero_point()
                kernel = dequantize(self._stored_codes(), self.scale[...], zero_point)
                y = self._float_conv(rows.astype(dtype), kernel.astype(dtype))
            else:
                y = self._int_conv(rows)
            return self._finish(y, x, dtype)

    def _int_conv(self, x: jax.Array) -> jax.Array:
        codes, scale, zero_point = self._input_codes(x, examples(x))
        weight = self._stored_codes()
        y = int_conv(
            codes,
            weight,
            strides=self.strides,
            padding=self._pads(x),
            dilation=self.kernel_dilation,
            groups=self.feature_group_count,
            pad_code=None if zero_point is None else zero_point.reshape(()),
        )
        if zero_point is not None:
            sums = weight.astype(jnp.int32).sum(tuple(range(weight.ndim - 1)))
            y = y - zero_point.astype(jnp.int32) * sums.reshape((1,) * (y.ndim - 1) + (-1,))
        wide = float32_or_wider(scale.dtype)
        return y.astype(wide) * (self.scale[...].astype(wide) * scale)

    @classmethod
    def _of(
        cls, sizes: dict, bias: Any, spec: QuantSpec, weight: Codes, static: Scale | None
    ) -> Self:
        layer = nnx.eval_shape(lambda: cls(**sizes, spec=spec, rngs=nnx.Rngs(0)))
        if bias is not None:
            layer.bias.set_value(bias[...])
        layer._store(weight)
        layer._make_input(static)
        return layer
