# SPDX-License-Identifier: Apache-2.0
"""State leaves to host memory and back onto devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

K = TypeVar("K")


def to_host(leaves: Mapping[K, Any]) -> dict[K, np.ndarray]:
    """NumPy copies that outlive the donation of the originals; one process's arrays, whole."""
    with jax.transfer_guard_device_to_host("allow"):
        for leaf in leaves.values():
            if isinstance(leaf, jax.Array):
                leaf.copy_to_host_async()
        return {name: np.array(leaf, copy=True) for name, leaf in leaves.items()}


def place(values: Sequence[np.ndarray], like: Sequence[Any]) -> list[Any]:
    """Put each array where its counterpart in `like` is, or says it should be.

    NumPy arrays and numbers in `like` leave the value on the host.
    """
    placed: list[Any] = list(values)
    on_device = [
        i for i, leaf in enumerate(like) if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct)
    ]
    shardings = [_sharding(like[i]) for i in on_device]
    if jax.process_count() > 1:
        arrays = [_place_shards(values[i], s) for i, s in zip(on_device, shardings, strict=True)]
    else:
        arrays = jax.device_put([values[i] for i in on_device], shardings)
    for i, array in zip(on_device, arrays, strict=True):
        placed[i] = array
    return placed


def _sharding(leaf: Any) -> jax.sharding.Sharding | None:
    """None where the leaf is not bound to a device, so that jit sees no difference."""
    if isinstance(leaf, jax.Array) and not leaf.committed:
        return None
    return leaf.sharding


def _place_shards(value: np.ndarray, sharding: jax.sharding.Sharding | None) -> jax.Array:
    if sharding is None:
        return jax.numpy.asarray(value)
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])
