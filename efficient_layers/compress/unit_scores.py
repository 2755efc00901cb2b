# SPDX-License-Identifier: Apache-2.0
"""How important the units of a group are (`compress/dimensions.py`): the lowest go first.

Over all parameters w of a unit, in all layers (its filters' outputs and inputs, its norms):

    l1          sum |w|                         (Li et al., 2017, arXiv 1608.08710)
    l2          sqrt(sum w^2)                   (Fang et al., 2023, arXiv 2301.12900)
    bn_scale    sum |scale| of its BatchNorms   (Liu et al., 2017, arXiv 1708.06519)
    taylor      sum of the mean over batches of (g w)^2, g the gradient of `loss`
                                                (Molchanov et al., 2019, arXiv 1906.10771, eq. 8)
    activation  mean |x| of its channels x where layers read them, after norm and activation
                                                (Molchanov et al., 2017, arXiv 1611.06440, sec. 2.2)
    random      uniform in [0, 1), by `seed`

Differ from the papers: scores are over a whole group, not over one filter; `activation` has the
mean magnitude in place of the mean, since not every activation function is a ReLU (Hu et al.,
arXiv 1607.03250, count zeros, which only a ReLU makes).
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from efficient_layers.compress import criteria
from efficient_layers.compress.dimensions import Axis, Group
from efficient_layers.compress.edits import module_at
from efficient_layers.compress.observe import observe
from efficient_layers.compress.technique import Context
from efficient_layers.models.paths import at

NEEDS: Mapping[str, frozenset[str]] = {
    "l1": frozenset(),
    "l2": frozenset(),
    "bn_scale": frozenset(),
    "taylor": frozenset({"data", "loss"}),
    "activation": frozenset({"data"}),
    "random": frozenset(),
}

Lines = Mapping[Axis, np.ndarray]  # of an axis, the score of every index


def unit_scores(
    criterion: str, context: Context, groups: Sequence[Group], *, seed: int = 0
) -> list[np.ndarray | None]:
    """A score a unit, of every group; None where the criterion has nothing to look at.

    Raises:
      ValueError: data without a batch; scores that are not finite.
    """
    if criterion == "random":
        firsts = [int(next(iter(group.members.values())).min()) for group in groups]
        return [
            np.random.default_rng([seed, first]).random(group.units)
            for first, group in zip(firsts, groups, strict=True)
        ]
    axes = dict.fromkeys(axis for group in groups for axis in group.members)
    if criterion == "activation":
        lines = _activations(context, groups)
    else:
        lines = _sums(_weights(criterion, context, axes), axes)
    found = [_of_units(group, lines, mean=criterion == "activation") for group in groups]
    for group, scores in zip(groups, found, strict=True):
        if scores is not None and not np.isfinite(scores).all():
            raise ValueError(
                f"{criterion}: the scores of {', '.join(path for path, _ in group.members)} are "
                "not finite. Look for NaN or infinity in weights, `data` and the gradients of "
                "`loss`."
            )
    return [np.sqrt(s) if criterion == "l2" and s is not None else s for s in found]


def _weights(criterion: str, context: Context, axes: Mapping[Axis, None]) -> dict[str, np.ndarray]:
    """The arrays that count, as they are summed up."""
    paths = dict.fromkeys(path for path, _ in axes)
    variables = {path: at(context.model, path) for path in paths}
    weights = {
        path: np.asarray(v[...])
        for path, v in variables.items()
        if isinstance(v, nnx.Param) and (criterion != "bn_scale" or _scales(context.model, path))
    }
    if criterion == "taylor":
        return criteria.scores("taylor", context, weights, seed=0)
    magnitudes = {path: np.abs(w.astype(np.float32)) for path, w in weights.items()}
    return {path: w * w for path, w in magnitudes.items()} if criterion == "l2" else magnitudes


def _scales(model: nnx.Module, path: str) -> bool:
    owner, _, name = path.rpartition("/")
    return name == "scale" and isinstance(module_at(model, owner), nnx.BatchNorm)


def _sums(weights: Mapping[str, np.ndarray], axes: Mapping[Axis, None]) -> Lines:
    """Of every axis, the sum over all others."""
    return {
        (path, axis): w.sum(tuple(a for a in range(w.ndim) if a != axis), dtype=np.float64)
        for path, axis in axes
        if (w := weights.get(path)) is not None
    }


def _of_units(group: Group, lines: Lines, *, mean: bool) -> np.ndarray | None:
    known = [(lines[axis], rows) for axis, rows in group.members.items() if axis in lines]
    if not known:
        return None
    if mean:
        return np.mean([line[rows].mean(1) for line, rows in known], axis=0)
    return np.sum([line[rows].sum(1) for line, rows in known], axis=0)


def _activations(context: Context, groups: Sequence[Group]) -> Lines:
    """The mean |x| of every channel that the kernel of a linear layer or convolution reads."""
    places = {
        owner: (path, axis)
        for group in groups
        for path, axis in group.members
        if (owner := _reader(context.model, path, axis)) is not None
    }
    seen: dict[str, list[np.ndarray]] = {}
    count = observe(
        context.model,
        dict.fromkeys(places, _magnitudes),
        context.data,
        lambda path, value: seen.setdefault(path, []).append(value),
        loss=context.loss,
    )
    if not count:
        raise ValueError("activation: `data` holds no batch.")
    means = {places[path]: np.mean(rows, axis=0) for path, rows in seen.items()}
    return {  # a grouped convolution reads more channels than its kernel has rows
        (path, axis): line
        for (path, axis), line in means.items()
        if len(line) == at(context.model, path).shape[axis]
    }


def _reader(model: nnx.Module, path: str, axis: int) -> str | None:
    """The layer that sums over this axis of its kernel."""
    owner, _, name = path.rpartition("/")
    layer = module_at(model, owner)
    reads = name == "kernel" and axis == at(model, path).ndim - 2
    return owner if reads and isinstance(layer, nnx.Linear | nnx.Conv) else None


def _magnitudes(x: jax.Array) -> jax.Array:
    return jnp.abs(x.astype(jnp.float32)).mean(tuple(range(x.ndim - 1)))
