# SPDX-License-Identifier: Apache-2.0
"""Watching modules of any model at work: a copy whose modules at some paths call a function."""

import functools
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from flax import nnx

from efficient_layers.compress.edits import module_at
from efficient_layers.measure.view import view

Hook = Callable[..., Any]
"""`hook(call, *args, **kwargs)` stands for the module's call, and may make it: `call(*args)`."""


def hooked(model: nnx.Module, hooks: Mapping[str, Hook]) -> nnx.Module:
    """A copy of `model` in eval mode whose modules at these paths are called through hooks.

    The classes of these modules are subclasses of what they were, so code that asks for a type, an
    attribute or a weight finds it. A hook is run where the model is traced; what it sees may be a
    tracer inside a scan or a remat, so it hands values out by `jax.debug.callback` alone.
    """
    copy = view(model)
    for path, hook in hooks.items():
        module = module_at(copy, path)
        module.hook = hook
        # Not through nnx's __setattr__, which would take the class for an attribute.
        object.__setattr__(module, "__class__", _hooked_class(type(module)))  # type: ignore[arg-type]
    return copy


@functools.cache
def _hooked_class(cls: Hashable) -> type:
    assert isinstance(cls, type)
    made: Any = cls.__call__

    @functools.wraps(made)  # with its signature: callers ask for `rngs` and `out`
    def through_hook(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self.hook(functools.partial(made, self), *args, **kwargs)

    return type(cls.__name__, (cls,), {"__call__": through_hook})
