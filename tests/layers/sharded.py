# SPDX-License-Identifier: Apache-2.0
"""Run by `test_sharded.py` in a process of 8 virtual devices: each layer, sharded and not."""

import sys

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from tests.layers.case import cases
from tests.layers.programs import Program, program

TOLERANCE = 2e-5


def main() -> int:
    """Prints a line a layer; the exit status is the number of layers that differ."""
    mesh = jax.make_mesh((4, 2), ("data", "tensor"), axis_types=(AxisType.Auto,) * 2)
    failed = 0
    for case in {case.layer: case for case in reversed(cases())}.values():
        p = program(case)
        x = case.input(batch=8)
        step = jax.jit(jax.value_and_grad(p.scalar, case.differentiable))
        alone = step(p.params, x)
        error = difference(step(*placed(mesh, p, x)), alone)
        failed += not error <= TOLERANCE
        print(f"{'ok ' if error <= TOLERANCE else 'BAD'} {case} {error:.1e}", flush=True)
    return failed


def placed(mesh: jax.sharding.Mesh, p: Program, x: np.ndarray) -> tuple:
    """The batch over "data"; the last axis of a parameter over "tensor" where it divides."""

    def put(value: jax.Array) -> jax.Array:
        divides = value.ndim > 0 and value.shape[-1] % mesh.shape["tensor"] == 0
        spec = (*(None,) * (value.ndim - 1), "tensor") if divides else ()
        return jax.device_put(value, NamedSharding(mesh, PartitionSpec(*spec)))

    split = NamedSharding(mesh, PartitionSpec("data"))
    return jax.tree.map(put, p.params), jax.device_put(x, split)


def difference(got: object, expected: object) -> float:
    """The largest error, relative to the largest number of its array."""
    pairs = zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True)
    arrays = [(np.asarray(a), np.asarray(b)) for a, b in pairs]
    return max(float(np.abs(a - b).max() / max(1, np.abs(b).max())) for a, b in arrays)


if __name__ == "__main__":
    sys.exit(main())
