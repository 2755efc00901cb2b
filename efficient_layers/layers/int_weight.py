# SPDX-License-Identifier: Apache-2.0
"""The weight side of layers that store integers: codes, packed, with their scale and zero point."""

from typing import Any

import jax
from flax import nnx

from efficient_layers.layers.quant_param import QuantParam, QuantScale
from efficient_layers.layers.quant_spec import Codes, QuantSpec
from efficient_layers.ops.pack import pack, unpack
from efficient_layers.ops.quantize import dequantize


class IntWeight:
    """`codes` (uint8, several a byte, below 8 bits), `scale`, `zero_point`; mixed into a layer."""

    spec: QuantSpec
    codes: Any
    scale: Any
    zero_point: Any

    def _store(self, weight: Codes) -> None:
        codes, scale, zero_point = weight
        if self.spec.width == 8:
            self.codes = QuantParam(codes)
        else:
            packed = pack(codes, self.spec.width)
            self.codes = QuantParam(packed, logical_shape=tuple(codes.shape))
        self.scale = QuantScale(scale)
        self.zero_point = nnx.data(None)
        if zero_point is not None:
            self.zero_point = QuantScale(zero_point)

    def dequantised(self) -> jax.Array:
        """The kernel that the codes stand for, in the scale's dtype."""
        return dequantize(self._stored_codes(), self.scale[...], self._stored_zero_point())

    def _stored_codes(self) -> jax.Array:
        """One code an int8."""
        if self.spec.width == 8:
            return self.codes[...]
        size = self.codes.get_metadata("logical_shape")[-1]
        return unpack(self.codes[...], self.spec.width, size)

    def _stored_zero_point(self) -> jax.Array | None:
        return None if self.zero_point is None else self.zero_point[...]
