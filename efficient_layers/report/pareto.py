# SPDX-License-Identifier: Apache-2.0
"""Pareto fronts, dominance and hypervolume of a few hundred named points.

A point *dominates* another when it is at least as good in every objective and better in one.
Equal points do not dominate each other. The hypervolume is the volume of the region that the
points dominate, down to a reference point that bounds it (Zitzler and Thiele, "Multiobjective
Optimization Using Evolutionary Algorithms", PPSN V, 1998); one number for a whole front.
"""

from collections.abc import Iterable, Mapping, Sequence

Point = Sequence[float]


def front(points: Mapping[str, Point], *, maximise: Sequence[bool]) -> list[str]:
    """Names of the points that no other point dominates, in the order given.

    `maximise[i]` says whether more of objective `i` is better. Raises ValueError for a point with
    another number of objectives or with a value that is not finite.
    """
    beaten = dominated(points, maximise=maximise)
    return [name for name in points if name not in beaten]


def dominated(points: Mapping[str, Point], *, maximise: Sequence[bool]) -> dict[str, list[str]]:
    """Every dominated name with the names that dominate it, both in the order given."""
    costs = {name: _as_costs(name, point, maximise) for name, point in points.items()}
    better = {
        name: [other for other, rival in costs.items() if _dominates(rival, cost)]
        for name, cost in costs.items()
    }
    return {name: others for name, others in better.items() if others}


def nadir(
    points: Iterable[Point], *, maximise: Sequence[bool], margin: float = 0.1
) -> tuple[float, ...]:
    """A reference point for `hypervolume`: the worst values, pushed out by a share of the range.

    The push keeps the extreme points of a front from counting as zero. An objective in which all
    points agree is pushed out by `margin` of its size (by `margin` itself at zero). The point
    depends on the set of runs: state it beside the volume, and pass a fixed one to compare sets.
    """
    columns = list(zip(*(list(point) for point in points), strict=True))
    if len(columns) != len(maximise):
        raise ValueError(f"nadir() needs points with {len(maximise)} objectives; got {columns}.")
    reference = []
    for values, more_is_better in zip(columns, maximise, strict=True):
        low, high = min(values), max(values)
        push = margin * ((high - low) or abs(high) or 1.0)
        reference.append(low - push if more_is_better else high + push)
    return tuple(reference)


def hypervolume(points: Iterable[Point], reference: Point, *, maximise: Sequence[bool]) -> float:
    """Volume dominated by `points` and bounded by `reference`, exact in any dimension.

    Points not better than the reference in every objective add nothing. The unit is the product of
    the objectives' units. Cost: n log n in two objectives; above, slicing along the last objective
    (While et al., "A Faster Algorithm for Calculating Hypervolume", IEEE TEC 10(1), 2006, sec. II).
    """
    bound = _as_costs("reference", reference, maximise)
    gains = []
    for index, point in enumerate(points):
        cost = _as_costs(str(index), point, maximise)
        gain = tuple(b - c for b, c in zip(bound, cost, strict=True))
        if all(g > 0 for g in gain):
            gains.append(gain)
    return _volume(gains)


def staircase(points: Iterable[Point], reference: Point) -> list[tuple[float, float]]:
    """Corners of the outline of a two-objective dominated region, from edge to edge.

    `points` are the front alone. The outline runs along the first objective, starts and ends at
    the reference's level, and touches every point; the reference closes it to a polygon.
    """
    ordered = sorted((float(x), float(y)) for x, y in points)
    x_reference, y_reference = float(reference[0]), float(reference[1])
    if not ordered:
        return []
    if x_reference < ordered[0][0]:  # more x is better: walk away from the reference
        corners = _stairs([(-x, y) for x, y in reversed(ordered)], -x_reference, y_reference)
        return [(-x, y) for x, y in reversed(corners)]
    return _stairs(ordered, x_reference, y_reference)


def _stairs(
    ordered: list[tuple[float, float]], x_reference: float, y_reference: float
) -> list[tuple[float, float]]:
    corners = [(ordered[0][0], y_reference)]
    for i, (x, y) in enumerate(ordered):
        corners.append((x, y))
        corners.append((ordered[i + 1][0] if i + 1 < len(ordered) else x_reference, y))
    return corners


def _as_costs(name: str, point: Point, maximise: Sequence[bool]) -> tuple[float, ...]:
    if len(point) != len(maximise):
        raise ValueError(
            f"Point {name!r} has {len(point)} objectives but maximise has {len(maximise)}."
        )
    costs = tuple(
        -float(v) if more_is_better else float(v)
        for v, more_is_better in zip(point, maximise, strict=True)
    )
    if any(c != c or c in (float("inf"), float("-inf")) for c in costs):
        raise ValueError(f"Point {name!r} must be finite; got {tuple(point)}. Leave it out.")
    return costs


def _dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))


def _volume(gains: list[tuple[float, ...]]) -> float:
    """Volume of the union of boxes [0, gain]."""
    if not gains:
        return 0.0
    if len(gains[0]) == 1:
        return max(gain[0] for gain in gains)
    if len(gains[0]) == 2:
        return _area(gains)
    ordered = sorted(gains, key=lambda gain: gain[-1], reverse=True)
    total = 0.0
    for i, gain in enumerate(ordered):
        floor = ordered[i + 1][-1] if i + 1 < len(ordered) else 0.0
        if gain[-1] > floor:
            total += (gain[-1] - floor) * _volume([g[:-1] for g in ordered[: i + 1]])
    return total


def _area(gains: list[tuple[float, ...]]) -> float:
    total = best = 0.0
    for x, y in sorted(gains, reverse=True):
        if y > best:
            total += x * (y - best)
            best = y
    return total
