# SPDX-License-Identifier: Apache-2.0
"""Device meshes from text, and which array is split over which of their axes.

    mesh = make_mesh("data:4,fsdp:2")
    shardings = state_shardings(state, mesh, rules=[("head/kernel", "fsdp,tensor")])
    batch = jax.device_put(batch, batch_sharding(mesh))

Axis `data` only splits the batch; `fsdp` splits the batch and the big arrays of the state (weights,
gradients, optimiser: Zhao et al., PyTorch FSDP, 2023, arXiv 2304.11277; Rajbhandari et al., ZeRO
stage 3, 2020, arXiv 1910.02054); any other axis (`tensor`) splits what the rules say. XLA puts in
the collectives.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

BATCH_AXES = ("data", "fsdp")
_AXIS = re.compile(r"\s*([A-Za-z_]\w*)\s*:\s*(-1|[1-9][0-9]*)\s*")


def make_mesh(spec: str = "data:-1", devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh such as `"data:4,fsdp:2,tensor:1"`; one size may be -1, "all that are left".

    Raises:
      ValueError: the text has another form, or its sizes do not multiply to the device count.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = _sizes(spec)
    free = [name for name, size in sizes.items() if size == -1]
    known = math.prod(size for size in sizes.values() if size != -1)
    if len(free) > 1:
        raise ValueError(f"mesh {spec!r}: at most one axis may be -1. Got {', '.join(free)}.")
    if free:
        sizes[free[0]] = len(devices) // known
        known *= sizes[free[0]]
    if known != len(devices):
        raise ValueError(
            f"mesh {spec!r} spans {' x '.join(str(s) for s in _sizes(spec).values())} devices, "
            f"{len(devices)} {devices[0].platform} device(s) are there; make the product equal "
            "or give one axis -1."
        )
    return jax.make_mesh(
        tuple(sizes.values()),
        tuple(sizes),
        axis_types=(AxisType.Auto,) * len(sizes),
        devices=devices,
    )


def _sizes(spec: str) -> dict[str, int]:
    """`"data:4,fsdp:-1"` -> {"data": 4, "fsdp": -1}."""
    sizes: dict[str, int] = {}
    for part in spec.split(","):
        match = _AXIS.fullmatch(part)
        if not match or match[1] in sizes:
            raise ValueError(
                "a mesh is written 'name:size,name:size', each name once and sizes >= 1 or -1, "
                f"e.g. 'data:4,fsdp:2'. Got {spec!r}."
            )
        sizes[match[1]] = int(match[2])
    return sizes


def array_name(path: tuple[Any, ...]) -> str:
    """A key path of `jax.tree_util` as `"blocks/0/conv/kernel"`: what regex rules match.

    The last `value` of an `nnx.Variable` is left out.
    """
    keys = path[:-1] if path and path[-1] == jax.tree_util.GetAttrKey("value") else path
    return jax.tree_util.keystr(keys, simple=True, separator="/")


def state_shardings(
    tree: Any, mesh: Mesh, rules: Sequence[tuple[str, str]] = (), *, min_size: int = 2**16
) -> Any:
    """A `NamedSharding` for every array (or `ShapeDtypeStruct`) of `tree`.

    `rules` are pairs (regex, spec). The first regex found in an array's name (`array_name`; the
    optimiser's moments carry the name of their weight) decides: the spec names a mesh axis for
    each dimension, `-` for none, `data+fsdp` for two, and `replicated` stands for no split at all.
    Arrays of fewer dimensions than the spec (Adafactor's rows of a weight) follow the default.
    Default: arrays of at least `min_size` elements have their largest dimension that divides
    split over `fsdp`; everything else is on every device.

    Raises:
      ValueError: a rule that matches no array, names no axis of the mesh, or does not divide.
    """
    used: set[str] = set()
    parsed = [(re.compile(pattern), _spec(pattern, spec, mesh)) for pattern, spec in rules]

    def sharding(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name, shape = array_name(path), tuple(leaf.shape)
        for pattern, spec in parsed:
            if pattern.search(name):
                used.add(pattern.pattern)
                if len(shape) >= len(spec):
                    _check_divides(name, shape, spec, mesh)
                    return NamedSharding(mesh, spec)
                break
        return NamedSharding(mesh, _fsdp(shape, mesh, min_size))

    shardings = jax.tree_util.tree_map_with_path(sharding, tree)
    unused = [pattern for pattern, _ in rules if pattern not in used]
    if unused:
        raise ValueError(f"sharding rule(s) that match no array: {', '.join(map(repr, unused))}.")
    return shardings


def _spec(pattern: str, text: str, mesh: Mesh) -> PartitionSpec:
    """`"fsdp,-,data+tensor"` -> PartitionSpec("fsdp", None, ("data", "tensor"))."""
    if text.strip() == "replicated":
        return PartitionSpec()
    dims = []
    for part in text.split(","):
        axes = tuple(axis.strip() for axis in part.split("+") if axis.strip() not in ("", "-"))
        for axis in axes:
            if axis not in mesh.shape:
                raise ValueError(
                    f"sharding rule {pattern!r} -> {text!r}: the mesh has no axis {axis!r}, "
                    f"only {', '.join(mesh.shape)}."
                )
        dims.append(axes if len(axes) > 1 else axes[0] if axes else None)
    return PartitionSpec(*dims)


def _check_divides(name: str, shape: tuple[int, ...], spec: PartitionSpec, mesh: Mesh) -> None:
    for size, axes in zip(shape, spec, strict=False):
        parts = math.prod(
            mesh.shape[a] for a in (axes if isinstance(axes, tuple) else (axes,)) if a
        )
        if size % parts:
            raise ValueError(
                f"{name} has shape {shape}: {size} does not divide into {parts} parts ({axes})."
            )


def _fsdp(shape: tuple[int, ...], mesh: Mesh, min_size: int) -> PartitionSpec:
    parts = mesh.shape.get("fsdp", 1)
    if parts == 1 or math.prod(shape) < max(min_size, 1):
        return PartitionSpec()
    fitting = [axis for axis, size in enumerate(shape) if size and size % parts == 0]
    if not fitting:
        return PartitionSpec()
    largest = max(fitting, key=lambda axis: (shape[axis], axis))
    return PartitionSpec(*(["fsdp" if i == largest else None for i in range(len(shape))]))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first dimension of every batch array split over `data` and `fsdp`."""
    axes = tuple(axis for axis in BATCH_AXES if axis in mesh.shape)
    return NamedSharding(mesh, PartitionSpec(axes or None))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device: scalars, keys, metrics."""
    return NamedSharding(mesh, PartitionSpec())


def check_batch(batch_size: int, mesh: Mesh) -> None:
    """Raises ValueError when `batch_size` does not divide over the batch axes of `mesh`."""
    sizes = {axis: mesh.shape[axis] for axis in BATCH_AXES if axis in mesh.shape}
    parts = math.prod(sizes.values())
    if batch_size < 1 or batch_size % parts:
        below, above = batch_size // parts * parts, (batch_size // parts + 1) * parts
        near = f"{below} or {above}" if below > 0 else f"{above}"
        spans = " x ".join(f"{axis}:{size}" for axis, size in sizes.items())
        raise ValueError(
            f"batch size {batch_size} does not divide over {parts} devices ({spans}); "
            f"use {near}, or another mesh."
        )
