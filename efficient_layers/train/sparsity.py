# SPDX-License-Identifier: Apache-2.0
"""`config.sparsity`: optimisers that prune, regrow, or keep weights at zero while they train."""

from collections.abc import Callable
from typing import Any

import optax

from efficient_layers import compress
from efficient_layers.models.fields import nearest

NAMES = ("", "gradual", "rigl", "sparse_evolution")
Steps = Callable[[int | str], int]


def sparse(
    tx: optax.GradientTransformation,
    settings: dict[str, Any],
    steps: Steps,
    *,
    keep_zeros: bool,
) -> optax.GradientTransformation:
    """`tx` as `settings` (those of `config.sparsity`) want it.

    Args:
      steps: a duration of the configuration -> optimiser steps.
      keep_zeros: the run begins with pruned weights; where nothing else is asked for, their zeros
        stay (`el.compress.keep_zeros`).

    Raises:
      ValueError: an unknown name, or a setting out of range.
    """
    name = settings["name"]
    if name not in NAMES:
        raise ValueError(f"config.sparsity.name: unknown {name!r}. {nearest(name, NAMES[1:])}")
    if not name:
        return compress.keep_zeros(tx) if keep_zeros else tx
    path, every, end = settings["path"], steps(settings["every"]), steps(settings["end"])
    if name == "gradual":
        begin = steps(settings["begin"])
        end = max(end, begin + 1)
        schedule = compress.polynomial(begin, end, power=settings["power"], every=every)
        chosen = {key: settings[key] for key in ("sparsity", "method", "distribution")}
        rule = compress.Prune(path, **chosen)
        return compress.gradual(tx, rule, schedule=schedule)
    regrow = compress.rigl if name == "rigl" else compress.sparse_evolution
    return regrow(tx, path, every=every, end=end, fraction=settings["fraction"])
