# SPDX-License-Identifier: Apache-2.0
"""Any state pytree as a nested dict of named leaves, and the difference of two such trees."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np

Path = tuple[str, ...]
_SHOWN = 40  # entries of one kind in a message


class CheckpointMismatchError(ValueError):
    """The saved tree and the asked-for tree differ; the message lists every entry by its path."""


def _name(entry: Any) -> str:
    for attribute in ("key", "idx", "name"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    return str(entry)


def flat(tree: Any) -> dict[Path, Any]:
    """Leaves of any pytree by path: dict keys, indices and field names as strings.

    Raises:
        ValueError: the tree is a bare leaf, or two leaves would get the same dotted name.
        TypeError: a typed PRNG key; they are stored as integers (`jax.random.key_data`).
    """
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    result: dict[Path, Any] = {}
    dotted: set[str] = set()
    for entries, leaf in leaves:
        path = tuple(_name(entry) for entry in entries)
        name = ".".join(path)
        if not all(path) or not path or name in dotted:
            raise ValueError(
                f"State entries need distinct, non-empty names. Got {show(path)!r} "
                f"{'twice' if name in dotted else 'with an empty part'}."
            )
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.extended):
            raise TypeError(
                f"{show(path)} is a typed PRNG key ({leaf.dtype}). "
                "Keep jax.random.key_data(key) in the state and wrap it where it is used."
            )
        dotted.add(name)
        result[path] = leaf
    return result


def nested(leaves: dict[Path, Any]) -> dict[str, Any]:
    """`{("a", "b"): x}` -> `{"a": {"b": x}}`."""
    result: dict[str, Any] = {}
    for path, leaf in leaves.items():
        node = result
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = leaf
    return result


def show(path: Path) -> str:
    """A path for a message: `params/stem/kernel`."""
    return "/".join(path)


def kind(leaf: Any) -> tuple[tuple[int, ...], str]:
    """(shape, dtype name) of an array, a `jax.ShapeDtypeStruct` or a Python number."""
    if not hasattr(leaf, "dtype"):
        leaf = np.asarray(leaf)
    return tuple(leaf.shape), str(np.dtype(leaf.dtype))


def rows(leaves: dict[Path, Any]) -> list[tuple[list[str], list[int], str]]:
    """(path, shape, dtype name) of each leaf, as JSON values."""
    kinds = {path: kind(leaf) for path, leaf in leaves.items()}
    return [(list(path), list(shape), dtype) for path, (shape, dtype) in kinds.items()]


def nbytes(leaves: dict[Path, Any]) -> int:
    """Bytes of all leaves together."""
    kinds = [kind(leaf) for leaf in leaves.values()]
    return sum(math.prod(shape) * jax.numpy.dtype(dtype).itemsize for shape, dtype in kinds)


def require_same(
    saved: dict[Path, tuple[tuple[int, ...], str]], asked: dict[Path, Any], source: str
) -> None:
    """Raise `CheckpointMismatchError` unless both have the same paths, shapes and dtypes."""
    wanted = {path: kind(leaf) for path, leaf in asked.items()}
    shared = [path for path in wanted if path in saved]
    shapes = [p for p in shared if saved[p][0] != wanted[p][0]]
    dtypes = [p for p in shared if saved[p][0] == wanted[p][0] and saved[p][1] != wanted[p][1]]
    groups = {
        "missing in the checkpoint": [
            f"{show(p)} {_text(wanted[p])}" for p in wanted if p not in saved
        ],
        "unexpected in the checkpoint": [
            f"{show(p)} {_text(saved[p])}" for p in saved if p not in wanted
        ],
        "of another shape": [_pair(p, saved, wanted) for p in shapes],
        "of another dtype": [_pair(p, saved, wanted) for p in dtypes],
    }
    lines = [line for title, rows in groups.items() for line in _section(title, rows)]
    if lines:
        raise CheckpointMismatchError(
            "\n".join(
                [
                    f"{source} does not fit the state of this model and optimiser:",
                    *lines,
                    "Use the configuration it was written with, or start in a new workdir.",
                ]
            )
        )


def _text(leaf: tuple[tuple[int, ...], str]) -> str:
    return f"{leaf[1]}[{','.join(map(str, leaf[0]))}]"


def _pair(path: Path, saved: dict[Path, Any], wanted: dict[Path, Any]) -> str:
    return f"{show(path)}: checkpoint {_text(saved[path])}, here {_text(wanted[path])}"


def _section(title: str, rows: list[str]) -> list[str]:
    if not rows:
        return []
    more = [f"    ... and {len(rows) - _SHOWN} more"] if len(rows) > _SHOWN else []
    return [f"  {title} ({len(rows)}):", *(f"    {row}" for row in rows[:_SHOWN]), *more]
