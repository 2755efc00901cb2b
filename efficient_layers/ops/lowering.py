# SPDX-License-Identifier: Apache-2.0
"""Which form of an operation is traced: plain XLA (the reference) or one fast on a platform.

The choice is a `jax.make_user_context`, hence part of `jax.jit`'s cache key: a jitted function
called under another lowering is traced anew. (A plain contextvar would be read once, then ignored.)
"""

from contextlib import AbstractContextManager
from typing import Literal, get_args

import jax

Lowering = Literal["reference", "cpu", "gpu", "tpu"]

_CONTEXT = jax.make_user_context(default_value=None)
_PLATFORMS = {"cuda": "gpu", "rocm": "gpu"}


def lowering(name: Lowering | None) -> AbstractContextManager:
    """Traces the operations of this library in the form `name` while the context is open.

    `"reference"` is plain XLA without a branch on array sizes; `"cpu"`, `"gpu"` and `"tpu"` are
    what is fast there; None follows `jax.default_backend()`.

    >>> import efficient_layers as el
    >>> with el.ops.lowering("reference"):
    ...     el.ops.current_lowering()
    'reference'

    Raises:
      ValueError: `name` is none of these.
    """
    if name is not None and name not in get_args(Lowering):
        known = ", ".join(map(repr, get_args(Lowering)))
        raise ValueError(f"lowering expects one of {known} or None. Got {name!r}.")
    return _CONTEXT(name)


def current_lowering() -> str:
    """The lowering in force, with None resolved to the default backend's name."""
    name = _CONTEXT.value
    if name is None:
        backend = jax.default_backend()
        return _PLATFORMS.get(backend, backend)
    return name
