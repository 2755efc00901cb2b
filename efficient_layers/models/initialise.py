# SPDX-License-Identifier: Apache-2.0
"""Draws every weight of a model at once.

A layer that draws its own weight costs XLA one random generator to compile; MobileNetV2 has 53 of
them, 10 s on two cores. So a family's constructor builds its layers with `placeholder(rngs)`, then
calls `draw_weights`, which overwrites all kernels with slices of one long draw. Under `jax.jit`
(see `registry.create`) the layers' own draws are dead code and never compiled.
"""

import math
from collections.abc import Callable, Iterator

import jax
from flax import nnx

Scale = Callable[[nnx.Conv | nnx.Linear], float]


class _OneKey(nnx.RngStream):
    """Gives the same key at every call: tracing 159 `fold_in` of MobileNetV2 takes 1 s."""

    def __call__(self) -> jax.Array:
        return self.key[...]


def placeholder(rngs: nnx.Rngs) -> nnx.Rngs:
    """Keys for layers whose weights `draw_weights` will overwrite: all equal, good for no more."""
    same = nnx.Rngs()
    setattr(same, "params", _OneKey(rngs.params(), tag="params"))  # noqa: B010
    return same


def draw_weights(
    model: nnx.Module, scale: Scale, *, draw: Callable = jax.random.normal, rngs: nnx.Rngs
) -> None:
    """Sets the kernel of every convolution and linear layer in `model`, in place.

    Args:
      scale: what one unit of `draw` becomes in a layer: the standard deviation of its kernel for
        `jax.random.normal`, half the width of the range for a uniform draw on (-1, 1).
      draw: `(key, shape) -> array`.
    """
    layers = list(_weighted_layers(model))
    sizes = [math.prod(layer.kernel[...].shape) for layer in layers]
    # The barrier keeps XLA from compiling the whole generator once more into each slice.
    values = jax.lax.optimization_barrier(draw(rngs.params(), (sum(sizes),)))
    start = 0
    for layer, size in zip(layers, sizes, strict=True):
        kernel = layer.kernel[...]
        drawn = values[start : start + size].reshape(kernel.shape)
        # Not `kernel[...] = `: under a trace that asks the value for its sharding, in vain, slowly.
        layer.kernel.set_value((scale(layer) * drawn).astype(kernel.dtype))
        start += size


def he_normal_fan_out(layer: nnx.Conv | nnx.Linear) -> float:
    """Standard deviation sqrt(2 / (h w c_out)), groups ignored as torch's `kaiming_normal_` does.

    Reference: He et al., *Delving Deep into Rectifiers* (arXiv 1502.01852), section 2.2.
    """
    *window, _, c_out = layer.kernel[...].shape
    return math.sqrt(2 / (math.prod(window) * c_out))


def fan_out_of_a_group(layer: nnx.Conv | nnx.Linear) -> float:
    """The standard deviations of MnasNet's and EfficientNet's authors, for a normal draw.

    Convolutions: sqrt(2 / (h w c_out / groups)). Linear layers: that of their uniform draw on
    (-1, 1) / sqrt(c_out), 1 / sqrt(3 c_out).

    Reference: github.com/tensorflow/tpu, models/official/efficientnet/efficientnet_model.py.
    """
    *_, c_out = layer.kernel[...].shape
    if isinstance(layer, nnx.Linear):
        return math.sqrt(1 / (3 * c_out))
    return math.sqrt(layer.feature_group_count) * he_normal_fan_out(layer)


def glorot_uniform(layer: nnx.Conv | nnx.Linear) -> float:
    """Limit sqrt(6 / (fan_in + fan_out)) of the uniform draw, Keras' default.

    Reference: Glorot and Bengio, *Understanding the difficulty of training deep feedforward
    neural networks*, AISTATS 2010, equation 16.
    """
    *window, c_in, c_out = layer.kernel[...].shape
    return math.sqrt(6 / (math.prod(window) * (c_in + c_out)))


def _weighted_layers(model: nnx.Module) -> Iterator[nnx.Conv | nnx.Linear]:
    for _, module in nnx.iter_modules(model):
        if isinstance(module, nnx.Conv | nnx.Linear):
            yield module
