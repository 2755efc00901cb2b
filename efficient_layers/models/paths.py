# SPDX-License-Identifier: Apache-2.0
"""Paths of modules ("blocks/0/expand/conv"), and globs on them."""

import functools
import re
from collections.abc import Iterator
from typing import Any

from flax import nnx


def modules(model: nnx.Module) -> Iterator[tuple[str, nnx.Module]]:
    """(path, module) of every module below `model`, children before parents."""
    for path, module in nnx.iter_modules(model):
        if path:
            yield "/".join(map(str, path)), module


def at(model: Any, path: str) -> Any:
    """The module or Variable at a path."""
    for part in path.split("/"):
        model = model[int(part)] if part.isdigit() else getattr(model, part)
    return model


def put(model: Any, path: str, module: Any) -> None:
    """Sets `module` at a path."""
    parent, _, name = path.rpartition("/")
    owner = at(model, parent) if parent else model
    if name.isdigit():
        owner[int(name)] = module
    else:
        setattr(owner, name, module)


@functools.cache
def pattern(glob: str) -> re.Pattern[str]:
    """`*` and `?` stay between two `/`; `**` crosses them, and `**/` also stands for nothing.

    >>> bool(pattern("**/conv").fullmatch("conv")), bool(pattern("a/*").fullmatch("a/0/bn"))
    (True, False)
    """
    pieces = re.split(r"(\*\*/|\*\*|\*|\?)", glob)
    spelled = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(spelled.get(piece, re.escape(piece)) for piece in pieces))
