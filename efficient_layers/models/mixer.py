# SPDX-License-Identifier: Apache-2.0
"""The layer of a block that moves information between positions, chosen by name in a config.

Config fields: `attention`, a name in `el.layers`, and `attention_options`, arguments of its
constructor; softmax attention, linear attention, recurrent layers and causal convolutions all fit.

    create("decoder", attention="SlidingWindowAttention", attention_options={"window": 64})
"""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import jax
from flax import nnx
from flax.typing import Dtype

from efficient_layers import layers
from efficient_layers.models.swap import arguments, make_layer

Options = tuple[tuple[str, Any], ...]


def options(given: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> Options:
    """A dict, or its pairs (as JSON keeps them), as pairs in order: hashable.

    >>> options({"window": 8, "num_kv_heads": 1})
    (('num_kv_heads', 1), ('window', 8))
    """
    return tuple(sorted(dict(given).items()))


def make_mixer(
    name: str,
    options: Mapping[str, Any] | tuple[Any, ...],
    features: int,
    num_heads: int,
    *,
    rngs: nnx.Rngs,
    **settings: Any,
) -> Any:
    """A layer (b, n, features) -> (b, n, features). Of `settings` it gets those that it knows.

    Raises:
      ValueError: no such layer, or one that is none of sequences.
      TypeError: an option that it does not have.
    """
    known = arguments(getattr(layers, name, dict))[0]
    second = num_heads if "num_heads" in known else features
    mixer = make_layer({"layer": name, **dict(options)}, features, second, rngs=rngs, **settings)
    if not hasattr(mixer, "__call__"):  # noqa: B004
        raise ValueError(f"attention expects a layer of sequences. Got {name!r}.")
    return mixer


def mix(mixer: Any, x: jax.Array, **extra: Any) -> jax.Array:
    """`mixer(x)`, with what it knows of `extra` (a mask, rngs) that is given."""
    known = inspect.signature(mixer.__call__).parameters
    return mixer(x, **{name: v for name, v in extra.items() if v is not None and name in known})


def empty_state(
    mixer: Any, batch: int, max_length: int, *, dtype: Dtype | None = None, piece: int = 1
) -> Any:
    """What a causal mixer remembers before the first token: a `KVCache`, or a fixed-size state.

    Raises:
      ValueError: a layer that cannot decode token by token.
    """
    if hasattr(mixer, "init_cache"):
        return mixer.init_cache(batch, max_length, dtype=dtype, piece=piece)
    if hasattr(mixer, "init_state"):
        return mixer.init_state(batch)
    raise ValueError(
        f"{type(mixer).__name__} does not decode token by token. Use a causal attention, a linear "
        "attention or a recurrent layer."
    )
