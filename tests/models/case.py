# SPDX-License-Identifier: Apache-2.0
"""A family's smallest member, for the checks that every family passes (test_families.py)."""

import dataclasses
import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class FamilyCase:
    """`create(family, **fields)` on an input of shape `x`.

    Attributes:
      fields: tiny sizes that still have every kind of block of the family.
      vocabulary: 0: `x` is an image or a series of floats; else tokens below this number.
      logits: the expected shape of the logits.
      extra: further inputs by name (shape of int32 zeros), as a transformer's `segments`.
      head: the family knows `num_classes=0` as "features".
    """

    family: str
    fields: Mapping[str, Any]
    x: tuple[int, ...]
    logits: tuple[int, ...]
    vocabulary: int = 0
    extra: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    head: bool = True
    name: str = ""

    @property
    def id(self) -> str:
        return f"{self.family}-{self.name}" if self.name else self.family

    def inputs(self) -> dict[str, Any] | Any:
        """What the model is called with."""
        generator = np.random.default_rng(0)
        if self.vocabulary:
            x = jnp.asarray(generator.integers(0, self.vocabulary, self.x), jnp.int32)
        else:
            x = jnp.asarray(generator.standard_normal(self.x), jnp.float32)
        if not self.extra:
            return x
        return {"x": x} | {name: jnp.zeros(shape, jnp.int32) for name, shape in self.extra.items()}


def all_cases() -> list[FamilyCase]:
    """The `CASES` of every file in tests/models/cases."""
    from tests.models import cases

    found = []
    for module in sorted(m.name for m in pkgutil.iter_modules(cases.__path__)):
        found += importlib.import_module(f"tests.models.cases.{module}").CASES
    return found
