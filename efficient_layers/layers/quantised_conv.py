# SPDX-License-Identifier: Apache-2.0
"""What convolutions with stored codes share: sizes, checks, padding, the floating-point form."""

from collections.abc import Sequence
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jax import lax

from efficient_layers.layers.quant_spec import WEIGHT_ONLY, QuantSpec
from efficient_layers.ops.conv import conv_general_dilated
from efficient_layers.ops.precision import add_bias

Padding = str | int | Sequence[int | tuple[int, int]]


class StoredConv(nnx.Module):
    """A convolution whose kernel a subclass stores in some other form; names are `nnx.Conv`'s."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        *,
        padding: Padding = "SAME",
        kernel_dilation: int | Sequence[int] = 1,
        feature_group_count: int = 1,
        use_bias: bool = True,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.kernel_size = (kernel_size,) if isinstance(kernel_size, int) else tuple(kernel_size)
        rank = len(self.kernel_size)
        self.strides = _each(strides, rank)
        self.kernel_dilation = _each(kernel_dilation, rank)
        self.in_features = in_features
        self.out_features = out_features
        self.feature_group_count = feature_group_count
        self.padding = padding if isinstance(padding, str | int) else tuple(padding)
        self.use_bias = use_bias
        self.dtype = dtype
        self.param_dtype = param_dtype
        self._check_sizes()
        self.bias: Any = nnx.data(None)
        if use_bias:
            self.bias = nnx.Param(jnp.zeros((out_features,), param_dtype))
        draw = nnx.initializers.lecun_normal()
        self._take(draw(rngs.params(), self.kernel_shape, param_dtype))

    def _take(self, kernel: jax.Array) -> None:
        """Keeps a random kernel, in the form that the subclass stores."""
        raise NotImplementedError

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """(*kernel_size, in_features of a group, out_features)."""
        inputs = self.in_features // self.feature_group_count
        return (*self.kernel_size, inputs, self.out_features)

    def _check_sizes(self) -> None:
        name, groups = type(self).__name__, self.feature_group_count
        sizes = (self.in_features, self.out_features, groups)
        if min(*sizes, *self.kernel_size, *self.strides, *self.kernel_dilation) < 1:
            raise ValueError(
                f"{name} expects sizes of at least 1. Got in_features={self.in_features}, "
                f"out_features={self.out_features}, feature_group_count={groups}, "
                f"kernel_size={self.kernel_size}, strides={self.strides}, "
                f"kernel_dilation={self.kernel_dilation}."
            )
        if self.in_features % groups or self.out_features % groups:
            raise ValueError(
                f"{name} expects feature_group_count to divide in_features={self.in_features} "
                f"and out_features={self.out_features}. Got {groups}."
            )
        rank = len(self.kernel_size)
        pads = self.padding if isinstance(self.padding, tuple) else (0,) * rank
        if {len(self.strides), len(self.kernel_dilation), len(pads)} != {rank}:
            raise ValueError(
                f"{name} expects a number for each of the {rank} axes of kernel_size="
                f"{self.kernel_size}. Got strides={self.strides}, padding={self.padding}, "
                f"kernel_dilation={self.kernel_dilation}."
            )
        if isinstance(self.padding, str) and self.padding not in ("SAME", "VALID"):
            raise ValueError(
                f'{name} expects padding "SAME", "VALID", a number or pairs. Got {self.padding!r}.'
            )

    def _batched(self, x: jax.Array) -> jax.Array:
        """(b, *spatial, in), the leading axes folded."""
        name, rank = type(self).__name__, len(self.kernel_size)
        if x.ndim < rank + 1 or x.shape[-1] != self.in_features:
            spatial = " ".join("hwd"[:rank]) if rank <= 3 else f"{rank} spatial"
            raise ValueError(
                f"{name} expects an input of shape (*batch, {spatial}, {self.in_features}). "
                f"Got {x.shape}."
            )
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(f"{name} expects a floating-point input. Got {x.dtype}.")
        lead = x.shape[: x.ndim - rank - 1]
        return x.reshape(prod(lead), *x.shape[len(lead) :])

    def _finish(self, y: jax.Array, x: jax.Array, dtype: Any) -> jax.Array:
        y = y.astype(dtype).reshape(*x.shape[: x.ndim - len(self.kernel_size) - 1], *y.shape[1:])
        return add_bias(y, None if self.bias is None else self.bias[...])

    def _pads(self, x: jax.Array) -> list[tuple[int, int]]:
        if not isinstance(self.padding, str):
            each = [self.padding] if isinstance(self.padding, int) else list(self.padding)
            each = each * len(self.kernel_size) if isinstance(self.padding, int) else each
            return [(p, p) if isinstance(p, int) else (p[0], p[1]) for p in each]
        pairs = zip(self.kernel_size, self.kernel_dilation, strict=True)
        extents = [(k - 1) * d + 1 for k, d in pairs]
        return list(lax.padtype_to_pads(x.shape[1:-1], extents, self.strides, self.padding))

    def _float_conv(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        rank = len(self.kernel_size)
        last = (0, rank + 1, *range(1, rank + 1))
        return conv_general_dilated(
            x,
            kernel,
            self.strides,
            self._pads(x),
            rhs_dilation=self.kernel_dilation,
            dimension_numbers=lax.ConvDimensionNumbers(last, (rank + 1, rank, *range(rank)), last),
            feature_group_count=self.feature_group_count,
        )

    def _settings(self) -> dict[str, Any]:
        names = ("in_features", "out_features", "kernel_size", "strides", "padding")
        more = ("kernel_dilation", "feature_group_count", "use_bias", "dtype", "param_dtype")
        return {name: getattr(self, name) for name in (*names, *more)}


class QuantisedConv(StoredConv):
    """Both forms of a quantised convolution: `spec` says how the kernel and the input are coded."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        *,
        spec: QuantSpec = WEIGHT_ONLY,
        rngs: nnx.Rngs,
        **kwargs: Any,
    ):
        self.spec = spec
        self._check_spec()
        super().__init__(in_features, out_features, kernel_size, strides, rngs=rngs, **kwargs)

    def _check_spec(self) -> None:
        name, spec = type(self).__name__, self.spec
        if spec.granularity == "group":
            raise ValueError(
                f'{name} expects granularity "tensor" or "channel": its products sum over all '
                f'inputs at once. Got "group" (group_size={spec.group_size}).'
            )
        if spec.activations is not None and not spec.symmetric:
            raise ValueError(
                f"{name} with int8 activations expects symmetric weights: a zero point of the "
                "weights needs the sum of every window of the input. Got symmetric=False; use it "
                "with activations=None."
            )
        if spec.activations == "dynamic" and not spec.symmetric_activations:
            raise ValueError(
                f"{name} with dynamic activations expects them symmetric: what is padded with is "
                "one zero point for all examples. Got symmetric_activations=False; use "
                'activations="static".'
            )

    @property
    def _parts(self) -> tuple[int, ...]:
        rank = len(self.kernel_shape)
        return self.spec.scale_shape(self.kernel_shape, channel=rank - 1, inputs=rank - 2)


def _each(value: int | Sequence[int], rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)


def examples(x: jax.Array) -> tuple[int, ...]:
    """The shape of a scale an example."""
    return (x.shape[0], *(1,) * (x.ndim - 1))


def sizes_of(conv: nnx.Conv) -> dict[str, Any]:
    """Arguments of a layer of `conv`'s sizes."""
    if not isinstance(conv, nnx.Conv):
        raise TypeError(f"from_conv expects an nnx.Conv. Got {type(conv).__name__}.")
    plain = conv.padding not in ("CIRCULAR", "CAUSAL", "REFLECT") and conv.mask is None
    dilated = conv.input_dilation
    between = (dilated,) if isinstance(dilated, int) else tuple(dilated or ())
    if not plain or any(d != 1 for d in between):
        raise ValueError(
            "from_conv expects a convolution with zero padding, no mask, no dilated input. Got "
            f"padding={conv.padding!r}, input_dilation={dilated}, "
            f"mask {'given' if conv.mask is not None else 'none'}."
        )
    return {
        "in_features": conv.in_features,
        "out_features": conv.out_features,
        "kernel_size": conv.kernel_size,
        "strides": conv.strides or 1,
        "padding": conv.padding,
        "kernel_dilation": conv.kernel_dilation or 1,
        "feature_group_count": conv.feature_group_count,
        "use_bias": conv.bias is not None,
        "dtype": conv.dtype,
        "param_dtype": conv.param_dtype,
    }
