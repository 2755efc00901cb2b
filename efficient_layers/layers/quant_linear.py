# SPDX-License-Identifier: Apache-2.0
"""Linear layers of quantised weights: one that trains, and its twin that stores integers."""

from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jaxtyping import Array, Float

from efficient_layers.layers.dense import Dense, check_linear
from efficient_layers.layers.int_weight import IntWeight
from efficient_layers.layers.quant_input import FakeInput, IntInput, Scale
from efficient_layers.layers.quant_spec import WEIGHT_ONLY, Codes, QuantSpec
from efficient_layers.ops.members import rows_times
from efficient_layers.ops.precision import add_bias, result_dtype
from efficient_layers.ops.quant_dot import int8_dot, weight_only_dot


class QuantLinear(FakeInput, Dense):
    """y = q(x) q(W) + bias: floating-point weights that are rounded to codes at every call.

    Training with the rounding in the forward pass and straight-through gradients lets the weights
    settle where rounding does no harm. `spec` says how W and x are quantised; x stays as it is
    where `spec.activations` is None. `convert()` gives the `IntLinear` that stores integers and
    computes the same, to rounding. The range of static activations is collected in train mode, or
    taken from `calibrate(x)`; before that, eval mode raises, and gives NaN where it is traced.

    params = in_features * out_features + out_features * use_bias + learned_steps
    MACs = positions * in_features * out_features

    A call with spec.noise < 1 needs `rngs` in train mode.

    Reference: Jacob et al., *Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference* (arXiv 1712.05877), section 3; Esser et al., *Learned Step
    Size Quantization* (arXiv 1902.08153); Fan et al., *Training with Quantization Noise for
    Extreme Model Compression* (arXiv 2004.07320).

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> spec = el.layers.QuantSpec(bits=4, activations="dynamic")
    >>> el.layers.QuantLinear(8, 6, spec=spec, rngs=nnx.Rngs(0))(jnp.ones((3, 8))).shape
    (3, 6)

    Raises:
      ValueError: a group_size that does not divide in_features; an input whose last axis is not
        in_features; no rngs where they are needed; static activations without a range.
      TypeError: an input of integers.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        spec: QuantSpec = WEIGHT_ONLY,
        use_bias: bool = True,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            in_features, out_features, use_bias=use_bias, dtype=dtype, param_dtype=param_dtype
        )
        shape = (in_features, out_features)
        parts = _scale_shape(spec, shape)
        draw = nnx.initializers.lecun_normal()
        self.kernel = nnx.Param(draw(rngs.params(), shape, param_dtype))
        self.spec = spec
        self.deterministic = False
        self._make_input(param_dtype)
        self._make_step(self.kernel[...], parts)

    @classmethod
    def from_linear(cls, linear: nnx.Linear, *, spec: QuantSpec = WEIGHT_ONLY) -> Self:
        """A layer that starts from `linear`'s weights.

        Raises:
          ValueError: a group_size that does not divide in_features.
          TypeError: `linear` is no `nnx.Linear`.
        """
        check_linear(linear)
        kernel = linear.kernel[...]
        step = spec.first_step(kernel, _scale_shape(spec, kernel.shape))
        weights = {"kernel": kernel} | ({} if step is None else {"step": step})
        layer = cls._like(linear, weights, spec=spec)
        layer._make_input(linear.param_dtype)
        return layer

    def __call__(self, x: Float[Array, "*b d"], *, rngs: Any = None) -> Float[Array, "*b o"]:
        """(*b, in_features) -> (*b, out_features)."""
        self._check(x)
        dtype = result_dtype(self.dtype, x, self.kernel[...])
        with jax.named_scope(type(self).__name__):
            key = self.spec.noise_key(type(self).__name__, self.deterministic, rngs)
            rows = x.reshape(-1, self.in_features)
            rows = self._fake_input(rows, (rows.shape[0], 1)).astype(dtype)
            y = rows_times(rows, self._quantised(key).astype(dtype))
            y = y.reshape(*x.shape[:-1], self.out_features)
            return add_bias(y, None if self.bias is None else self.bias[...])

    def nearest(self) -> Codes:
        """int8 codes of the weights (in, out), rounded to nearest; scale and zero point (None: 0).

        Raises:
          ValueError: weights that are not finite.
        """
        return self.spec.codes(self.kernel[...], self._parts, step=self._step)

    def convert(self, weight: Codes | None = None) -> "IntLinear":
        """The layer of integers with the same outputs in eval mode.

        Args:
          weight: codes chosen otherwise, in place of `nearest()`, with their scale and zero point.

        Raises:
          ValueError: static activations without a range; weights that are not finite.
        """
        static = self.input_scale() if self.spec.activations == "static" else None
        return IntLinear._of(self, self.spec, self.nearest() if weight is None else weight, static)

    @property
    def _parts(self) -> tuple[int, ...]:
        return _scale_shape(self.spec, (self.in_features, self.out_features))

    def _quantised(self, key: jax.Array | None) -> jax.Array:
        return self.spec.fake(self.kernel[...], self._parts, step=self._step, key=key)

    def _weights(self) -> tuple[jax.Array, ...]:
        return (self._quantised(None),)

    def _kernel(self, kernel: jax.Array) -> jax.Array:
        return kernel


class IntLinear(IntInput, IntWeight, Dense):
    """y = x W + bias with W stored as integers: scale (codes - zero_point).

    Codes of fewer than 8 bits are packed along the outputs. With `spec.activations` None the
    weights are made floats at each call and a product of floats runs; else x becomes int8 and
    products of int8 run, exact in int32, then scaled. For inference: the derivative with respect to
    an input that is quantised is 0; the weight-only form has the exact one. Made by
    `QuantLinear.convert` or `from_linear`; the constructor quantises random weights, and its static
    input scale is NaN until one is set.

    params = in_features * out_features + out_features * use_bias
    MACs = positions * in_features * out_features

    Reference: Jacob et al., *Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference* (arXiv 1712.05877), section 2.

    >>> from flax import nnx
    >>> import jax.numpy as jnp, efficient_layers as el
    >>> spec = el.layers.QuantSpec(bits=4, activations="dynamic")
    >>> el.layers.IntLinear(8, 6, spec=spec, rngs=nnx.Rngs(0))(jnp.ones((3, 8))).shape
    (3, 6)

    Raises:
      ValueError: a group_size that does not divide in_features; an input whose last axis is not
        in_features.
      TypeError: an input of integers.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        spec: QuantSpec = WEIGHT_ONLY,
        use_bias: bool = True,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            in_features, out_features, use_bias=use_bias, dtype=dtype, param_dtype=param_dtype
        )
        self.spec = spec
        kernel = nnx.initializers.lecun_normal()(
            rngs.params(), (in_features, out_features), param_dtype
        )
        self._store(_codes(spec, kernel))
        self._make_input()

    @classmethod
    def from_linear(cls, linear: nnx.Linear, *, spec: QuantSpec = WEIGHT_ONLY) -> Self:
        """`linear` with its kernel rounded: quantisation after training, without data.

        Raises:
          ValueError: static activations, which need `QuantLinear` and its calibration; a group_size
            that does not divide in_features; weights that are not finite.
          TypeError: `linear` is no `nnx.Linear`.
        """
        check_linear(linear)
        if spec.activations == "static":
            raise ValueError(
                'IntLinear.from_linear expects activations "dynamic" or None. Got "static": use '
                "QuantLinear.from_linear(...), calibrate(x), then convert()."
            )
        return cls._of(linear, spec, _codes(spec, linear.kernel[...]), None)

    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b o"]:
        """(*b, in_features) -> (*b, out_features)."""
        self._check(x)
        param_dtype = jnp.dtype(self.param_dtype) if self.bias is None else self.bias[...].dtype
        dtype = result_dtype(self.dtype, x, jnp.zeros((), param_dtype))
        with jax.named_scope(type(self).__name__):
            y = self._product(x.reshape(-1, self.in_features), dtype).astype(dtype)
            y = y.reshape(*x.shape[:-1], self.out_features)
            return add_bias(y, None if self.bias is None else self.bias[...])

    def _product(self, rows: jax.Array, dtype: Dtype) -> jax.Array:
        weight = (self.codes[...], self.scale[...], self._stored_zero_point())
        settings: Any = {"out": self.out_features, "width": self.spec.width}
        if self.spec.activations is None:
            return weight_only_dot(rows.astype(dtype), *weight, **settings)
        codes, scale, zero_point = self._input_codes(rows, (rows.shape[0], 1))
        return int8_dot(codes, zero_point, *weight, **settings) * scale

    def _weights(self) -> tuple[jax.Array, ...]:
        return (self.dequantised(),)

    def _kernel(self, kernel: jax.Array) -> jax.Array:
        return kernel

    @classmethod
    def _of(cls, linear: Any, spec: QuantSpec, weight: Codes, static: Scale | None) -> Self:
        """A layer of `linear`'s sizes and bias."""
        bias = {} if linear.bias is None else {"bias": linear.bias[...]}
        layer = cls._like(linear, bias, spec=spec)
        layer._store(weight)
        layer._make_input(static)
        return layer


def _scale_shape(spec: QuantSpec, shape: tuple[int, ...]) -> tuple[int, ...]:
    return spec.scale_shape(shape, channel=1, inputs=0)


def _codes(spec: QuantSpec, kernel: jax.Array) -> Codes:
    parts = _scale_shape(spec, kernel.shape)
    return spec.codes(kernel, parts, step=spec.first_step(kernel, parts))
