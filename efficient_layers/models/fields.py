# SPDX-License-Identifier: Apache-2.0
"""Checks the fields of a model's config: known names, right types, JSON in and out."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any


def nearest(name: str, known: Iterable[str], listed: Iterable[str] | None = None) -> str:
    """A sentence for an error message: the likeliest of `known`, else all of `listed` (`known`).

    >>> nearest("widht", ["width", "variant"])
    "Did you mean 'width'?"
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    rest = ", ".join(known if listed is None else sorted(listed))
    return f"Did you mean {close[0]!r}?" if close else f"Known: {rest}."


def build_config(name: str, config_type: type, fields: Mapping[str, Any]) -> Any:
    """`config_type(**fields)`, with errors that name model, field and remedy.

    Raises:
      TypeError: a field is unknown or its value has the wrong type.
      ValueError: from the config itself, when a value is out of range.
    """
    hints = typing.get_type_hints(config_type)
    for field, value in fields.items():
        if field not in hints:
            raise TypeError(f"Model {name!r} has no field {field!r}. {nearest(field, hints)}")
        if not _fits(value, hints[field]):
            raise TypeError(
                f"Field {field!r} of model {name!r} expects {_spell(hints[field])}. "
                f"Got {value!r} ({type(value).__name__})."
            )
    return config_type(**fields)


def to_json(config: Any) -> dict[str, Any]:
    """All fields of a config dataclass, tuples as lists."""
    return {name: _plain(value) for name, value in dataclasses.asdict(config).items()}


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _fits(value: Any, hint: Any) -> bool:
    if isinstance(hint, types.UnionType):
        return any(_fits(value, choice) for choice in hint.__args__)
    accepted: tuple[type, ...] = (typing.get_origin(hint) or hint,)
    if accepted == (float,):
        accepted = (int, float)
    elif accepted == (tuple,):
        accepted = (list, tuple)
    return isinstance(value, accepted) and (not isinstance(value, bool) or bool in accepted)


def _spell(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint)
