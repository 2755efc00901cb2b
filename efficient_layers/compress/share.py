# SPDX-License-Identifier: Apache-2.0
"""Sharing: modules of a trained stack become one another; weights of a layer share hash buckets."""

import dataclasses
import re
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from efficient_layers import layers
from efficient_layers.compress.edits import replace, tie, values_of, variables
from efficient_layers.compress.technique import Change, Context, Skip, Technique

Pattern = Literal["consecutive", "cycle"]
Combine = Literal["first", "mean"]
Member = tuple[str, nnx.Module]
# Each depth writes its own: one Variable for several depths would hold the last one's.
_OF_ONE_DEPTH = (nnx.BatchStat, nnx.Cache)


@dataclasses.dataclass(frozen=True)
class Share(Technique):
    """Fewer distinct weights for the same structure, in one of two ways.

    `method="layers"`, across layers: the modules that the glob matches ("blocks/*"), all of one
    structure, become `groups` distinct ones. Which: "consecutive" aabb, "cycle" abab. One module
    then stands for all of its group: the first, or the mean of all. The others *are* it, the very
    object in the place of each, so code that walks a list of blocks runs as before, with its caches
    and intermediates, and weights are trained, counted, saved and loaded once. The mean of trained
    layers is no trained layer: either way, fine-tune. Parts can be shared, too ("blocks/*/attn").
    MACs and latency stay. nnx keeps shared modules in its graph mode, the default; its tree mode
    (`nnx.set_graph_mode(False)`) refuses them.

    Skipped: modules of another structure than most; those with running statistics or caches, which
    belong to one depth (fold the BatchNorms first, or share the modules beside them); a module
    inside of another that matches.

    `method="hash"`, within a linear layer: `HashedLinear` with weights / `ratio` buckets, each the
    mean of its signed members, the nearest such kernel. The hash's seed comes from the layer's
    path.

    Attributes:
      method: "layers" or "hash".
      groups: distinct modules that are left, for "layers".
      pattern, combine: see above, for "layers".
      ratio: weights a bucket, above 1, for "hash".

    Reference: Lan et al., *ALBERT* (arXiv 1909.11942), section 3.1; Chen et al., *Compressing
    Neural Networks with the Hashing Trick* (arXiv 1504.04788), section 4. Differs from the papers:
    both train such weights from the start, here trained weights are shared.

    Raises:
      ValueError: settings out of range or of the other method; more groups than modules.
    """

    method: Literal["layers", "hash"] = "layers"
    groups: int | None = None
    pattern: Pattern = "consecutive"
    combine: Combine = "first"
    ratio: float | None = None

    def __post_init__(self) -> None:
        known = {"method": ("layers", "hash"), "pattern": Pattern, "combine": Combine}
        for name, kinds in known.items():
            kinds = kinds if isinstance(kinds, tuple) else get_args(kinds)
            if (got := getattr(self, name)) not in kinds:
                raise ValueError(f"Share expects {name} to be one of {kinds}. Got {got!r}.")
        needed, other = ("ratio", "groups") if self.method == "hash" else ("groups", "ratio")
        if getattr(self, needed) is None or getattr(self, other) is not None:
            raise ValueError(
                f'Share with method="{self.method}" expects {needed}= and not {other}=. Got '
                f"groups={self.groups}, ratio={self.ratio}."
            )
        if self.groups is not None and (self.groups < 1 or not isinstance(self.groups, int)):
            raise ValueError(f"Share expects groups of at least 1. Got {self.groups!r}.")
        if self.ratio is not None and self.ratio <= 1:
            raise ValueError(f"Share expects a ratio above 1. Got {self.ratio}.")

    def plan(self, context: Context) -> Iterable[Change | Skip]:
        if self.method == "hash":
            for path, module in context.matched:
                if isinstance(module, nnx.Linear):
                    yield self._hash(path, module)
            return
        skips, members = _equal(context.matched)
        yield from skips
        if members:
            yield from self._tie(members, skips)

    def _tie(self, members: list[Member], skips: list[Skip]) -> Iterator[Change | Skip]:
        assert self.groups is not None
        count = len(members)
        if self.groups > count:
            left = f" {skips[0].path} is left out: {skips[0].why}." if skips else ""
            raise ValueError(
                f"{self} expects at least {self.groups} modules of one structure. Got {count}."
                f"{left}"
            )
        sets: list[list[Member]] = [[] for _ in range(self.groups)]
        for i, member in enumerate(members):
            cycle = self.pattern == "cycle"
            sets[i % self.groups if cycle else i * self.groups // count].append(member)
        for (path, module), *others in sets:
            if not others:
                yield Skip(path, "alone in its group")
                continue
            values = _mean([module, *(m for _, m in others)]) if self.combine == "mean" else {}
            values = {f"{path}/{name}": value for name, value in values.items()}
            stands = "the mean of" if self.combine == "mean" else "stands for"
            yield Change(path, f"{stands} {1 + len(others)} modules", (), values)
            for other, _ in others:
                yield Change(other, f"is {path}", (tie(other, path),))

    def _hash(self, path: str, linear: nnx.Linear) -> Change | Skip:
        assert self.ratio is not None
        if not path or linear.kernel.ndim != 2:
            shape = linear.kernel.shape
            return Skip(path, "the model itself" if not path else f"stacked: {shape}")
        kernel = np.asarray(linear.kernel[...], np.float64)
        if not np.isfinite(kernel).all():
            raise ValueError(f"{self} expects finite weights. Got NaN or inf in {path}.")
        settings = {
            "buckets": max(1, int(kernel.size / self.ratio)),
            "seed": zlib.crc32(path.encode()),
        }
        layer = layers.HashedLinear.from_linear(linear, **settings)
        names = ("in_features", "out_features", "use_bias", "dtype", "param_dtype")
        sizes = {name: getattr(layer, name) for name in names}
        kept = np.square(np.asarray(layer.merge().kernel[...], np.float64)).sum()
        kept /= max(np.square(kernel).sum(), np.finfo(np.float64).tiny)
        why = f"{settings['buckets']:,} buckets keep {kept:.1%} of the energy"
        edit = replace(path, "HashedLinear", **sizes, **settings)
        return Change(path, why, (edit,), values_of(path, layer))


def _equal(matched: Iterable[Member]) -> tuple[list[Skip], list[Member]]:
    """What cannot be shared, and why; the others, of one structure, in the order of their paths."""
    skips, sound = [], []
    found = sorted(matched, key=lambda member: _natural(member[0]))
    paths = {path for path, _ in found}
    for path, module in found:
        if not path:
            skips.append(Skip(path, "the model itself"))
        elif outer := next((p for p in _parents(path) if p in paths and p), None):
            skips.append(Skip(path, f"inside {outer}, which matches, too"))
        elif reason := _refused(module):
            skips.append(Skip(path, reason))
        else:
            sound.append((path, module))
    classes: list[tuple[Any, list[Member]]] = []  # a structure may hold lists: not hashable
    for member in sound:
        structure = _structure(member[1])
        alike = next((members for known, members in classes if known == structure), None)
        if alike is None:
            classes.append((structure, [member]))
        else:
            alike.append(member)
    members = max((members for _, members in classes), key=len, default=[])
    for path, module in sound:
        if all(path != chosen for chosen, _ in members):
            model = members[0]
            skips.append(Skip(path, f"not as {model[0]}: {_difference(module, model[1])}"))
    return skips, members


def _refused(module: nnx.Module) -> str:
    """Why a module cannot stand for others, or ""."""
    known = variables(module)
    if not known:
        return "has no weights"
    for name, variable in known:
        if isinstance(variable, _OF_ONE_DEPTH):
            kind = type(variable).__name__
            return f"{name} is a {kind}, which belongs to one depth: fold it or share beside it"
    return ""


def _structure(module: nnx.Module) -> Any:
    """Equal for modules that differ in the values of their Variables alone."""
    graphdef, state = nnx.split(module)
    shapes = tuple((leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves(state))
    return graphdef, shapes


def _difference(one: nnx.Module, other: nnx.Module) -> str:
    if type(one) is not type(other):
        return f"{type(one).__name__}, not {type(other).__name__}"
    here, there = (
        {name: tuple(v.get_value().shape) for name, v in variables(m)} for m in (one, other)
    )
    for name in sorted({*here, *there}):
        if here.get(name) != there.get(name):
            return f"{name} is {here.get(name, 'absent')}, not {there.get(name, 'there')}"
    for (at, mine), (_, theirs) in zip(*map(_settings, (one, other)), strict=False):
        for name in sorted({*mine, *theirs}):
            if mine.get(name) != theirs.get(name):
                place = "/".join([*map(str, at), name])
                return f"{place} is {mine.get(name, 'absent')}, not {theirs.get(name, 'there')}"
    return "other settings (an activation, a function)"


def _settings(module: nnx.Module) -> list[tuple[tuple, dict[str, Any]]]:
    """Numbers and names that each module inside holds."""
    kinds = (bool, int, float, str, tuple, type(None))
    return [
        (path, {k: v for k, v in vars(inner).items() if k[0] != "_" and isinstance(v, kinds)})
        for path, inner in nnx.iter_modules(module)
    ]


def _mean(modules: list[nnx.Module]) -> dict[str, Any]:
    """Of every floating Variable, by name."""
    names = [name for name, v in variables(modules[0]) if jnp.issubdtype(v.dtype, jnp.floating)]
    each = [{name: v[...] for name, v in variables(module)} for module in modules]
    arrays = {name: [np.asarray(values[name], np.float64) for values in each] for name in names}
    return {name: np.mean(same, axis=0) for name, same in arrays.items()}


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:i]) for i in range(1, len(parts))]


def _natural(path: str) -> tuple[tuple[int, str], ...]:
    """blocks/2 before blocks/10."""
    parts = re.split(r"(\d+)", path)
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in parts)
