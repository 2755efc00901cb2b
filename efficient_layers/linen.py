# SPDX-License-Identifier: Apache-2.0
"""Every layer of `efficient_layers.layers` for Linen code: `el.linen.DepthwiseConv(8, 3)`.

Derived from the registry (`layers.__all__`) through `flax.nnx.bridge`; nothing is written twice.
Parameters lie in the collection "params", running statistics in "batch_stats", as Linen has them.

>>> import jax, jax.numpy as jnp, efficient_layers as el
>>> layer = el.linen.BatchNorm(4)
>>> y, variables = layer.init_with_output(jax.random.key(0), jnp.ones((2, 4)))
>>> sorted(variables)
['batch_stats', 'params']
"""

import inspect
from functools import partial
from typing import Any

from flax import nnx
from flax.nnx.bridge import ToLinen

from efficient_layers import layers


class Twin(ToLinen):
    """A layer as a Linen module; `train=False` in a call is the layer's eval mode.

    A stochastic layer draws from the Linen stream "dropout".
    """

    def __call__(self, *args: Any, train: bool = True, **kwargs: Any) -> Any:
        layer: Any = self.nnx_class
        draws = "rngs" in inspect.signature(layer.__call__).parameters
        if draws and train and self.has_rng("dropout"):
            kwargs["rngs"] = nnx.Rngs(default=self.make_rng("dropout"))
        return super().__call__(*args, nnx_method=partial(_call, train=train), **kwargs)


def _call(module: Any, *args: Any, train: bool, **kwargs: Any) -> Any:
    module.train() if train else module.eval()
    return module(*args, **kwargs)


def _twin(layer: type[nnx.Module], *args: Any, name: str | None = None, **kwargs: Any) -> Twin:
    settings = inspect.signature(layer.__init__).parameters.values()
    draws = any(p.name == "rngs" or p.kind is p.VAR_KEYWORD for p in settings)
    return Twin(layer, args, kwargs, skip_rng=not draws, name=name)


def __dir__() -> list[str]:
    classes = (name for name in layers.__all__ if inspect.isclass(getattr(layers, name)))
    return [name for name in classes if issubclass(getattr(layers, name), nnx.Module)]


def __getattr__(name: str) -> Any:
    if name not in __dir__():
        raise AttributeError(f"efficient_layers.linen has no layer {name!r}.")
    return partial(_twin, getattr(layers, name))
