# SPDX-License-Identifier: Apache-2.0
"""Counts of our own models, without weights, and the units that tables print them in."""

import dataclasses
import json
import math
from fractions import Fraction
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from efficient_layers import measure, models
from efficient_layers.evidence.verdict import Computed

NO_FAMILY = "no family here"
SLIM_CLASSES = 1001  # TF-Slim's ImageNet: a background class


@dataclasses.dataclass(frozen=True)
class Size:
    """Trainable parameters, and the channels that pass a BatchNorm."""

    params: int
    channels: int

    @property
    def with_statistics(self) -> int:
        """Scale, bias, running mean and running variance of BatchNorm counted."""
        return self.params + 2 * self.channels

    @property
    def slim_v1(self) -> int:
        """Three numbers a BatchNorm channel: TF-Slim's V1 has no scale."""
        return self.params + self.channels

    @property
    def without_norm(self) -> int:
        """BatchNorm left out."""
        return self.params - 2 * self.channels

    @property
    def folded(self) -> int:
        """BatchNorm folded: a bias a channel is left."""
        return self.params - self.channels


@cache
def _abstract(name: str, fields: str) -> nnx.Module:
    return nnx.eval_shape(lambda: models.create(name, **json.loads(fields), rngs=nnx.Rngs(0)))


def abstract(name: str, **fields: Any) -> nnx.Module:
    """The model, shapes only."""
    return _abstract(name, json.dumps(fields, sort_keys=True))


def size(name: str, **fields: Any) -> Size:
    """Parameters of a member of a family."""
    model = abstract(name, **fields)
    leaves = jax.tree.leaves(nnx.state(model, nnx.Param))
    norms = [m for _, m in nnx.iter_modules(model) if isinstance(m, nnx.BatchNorm)]
    return Size(sum(math.prod(x.shape) for x in leaves), sum(n.num_features for n in norms))


def macs(name: str, side: int, **fields: Any) -> int:
    """MACs of one RGB image of side x side pixels."""
    return _macs(name, side, json.dumps(fields, sort_keys=True))


@cache
def _macs(name: str, side: int, fields: str) -> int:
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    return measure.cost(_abstract(name, fields), image).macs


def exactly(n: int) -> Computed:
    """A number as it is."""
    return Computed(Fraction(n))


def mega(n: int, *, unit: int | None = None) -> Computed:
    """In millions. `unit`: what the print was rounded to, where coarser than its last digit."""
    return Computed(Fraction(n, 10**6), unit=None if unit is None else Fraction(unit))


def giga(n: int) -> Computed:
    """In thousands of millions."""
    return Computed(Fraction(n, 10**9))
