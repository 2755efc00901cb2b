# SPDX-License-Identifier: Apache-2.0
"""k-means of numbers on a line, exact and fast: the clusters of sorted values are runs.

For weights that exist already: computed once, outside jit, in NumPy and float64, the same numbers
on every run. One step of Lloyd's algorithm is k binary searches and k differences of running sums,
whatever the number of values is.
"""

from typing import Literal, get_args

import numpy as np

Start = Literal["linear", "density", "k-means++"]
STARTS = get_args(Start)
_MOST_STEPS = 1000


def kmeans(values: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Lloyd's algorithm from the centroids `start` until no value changes its cluster; sorted.

    A centroid without a value moves to the value that is farthest from its own centroid, as in
    scikit-learn. Where that distance is 0, or after 1,000 steps, centroids stay as they are.

    >>> kmeans(np.array([0.0, 1.0, 2.0, 10.0]), np.array([0.0, 3.0]))
    array([ 1., 10.])
    """
    values = np.sort(np.asarray(values, np.float64).ravel())
    sums = np.concatenate([[0.0], np.cumsum(values)])
    centroids = np.sort(np.asarray(start, np.float64))
    ends: np.ndarray | None = None
    for _ in range(_MOST_STEPS):
        before, ends = ends, _ends(values, centroids)
        if before is not None and np.array_equal(before, ends):
            break
        counts, totals = np.diff(ends), np.diff(sums[ends])
        if not counts.all():
            _fill(values, centroids, ends, counts, totals)
        centroids = np.where(counts > 0, totals / np.maximum(counts, 1), centroids)
        centroids = np.sort(centroids)
    return centroids


def nearest(values: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """The number of the nearest of sorted `centroids` for every value; of two equally near, the
    lower.
    """
    return np.searchsorted(_between(centroids), np.asarray(values, np.float64), side="left")


def first_centroids(values: np.ndarray, k: int, start: Start, *, seed: int = 0) -> np.ndarray:
    """`k` centroids to begin with.

    "linear": evenly spaced from the least to the greatest value, which keeps centroids for the few
    large weights (the paper's choice). "density": quantiles, as many values in each. "k-means++":
    drawn from the values, with probabilities that grow with the squared distance to those drawn.

    Reference: Han et al., *Deep Compression* (arXiv 1510.00149), section 3.2; Arthur &
    Vassilvitskii, *k-means++: the advantages of careful seeding*, 2007.
    """
    values = np.asarray(values, np.float64).ravel()
    if start == "linear":
        return np.linspace(values.min(), values.max(), k)
    if start == "density":
        return np.quantile(values, (np.arange(k) + 0.5) / k)
    draw = np.random.default_rng(seed)
    chosen = [values[draw.integers(values.size)]]
    distance = np.square(values - chosen[0])
    while len(chosen) < k:
        running = np.cumsum(distance)
        place = np.searchsorted(running, draw.uniform(0, running[-1]), side="right")
        chosen.append(values[min(int(place), values.size - 1)])
        np.minimum(distance, np.square(values - chosen[-1]), out=distance)
    return np.sort(chosen)


def _between(centroids: np.ndarray) -> np.ndarray:
    return (centroids[1:] + centroids[:-1]) / 2


def _ends(values: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Cluster i holds the sorted values[ends[i] : ends[i + 1]]."""
    inner = np.searchsorted(values, _between(centroids), side="right")
    return np.concatenate([[0], inner, [values.size]])


def _fill(
    values: np.ndarray,
    centroids: np.ndarray,
    ends: np.ndarray,
    counts: np.ndarray,
    totals: np.ndarray,
) -> None:
    """Gives every empty cluster a value, in place; a cluster of one value keeps it."""
    owner = np.repeat(np.arange(len(centroids)), np.diff(ends))
    distance = np.square(values - centroids[owner])
    empty = np.flatnonzero(counts == 0)[: values.size]
    farthest = np.argpartition(distance, -len(empty))[-len(empty) :]
    farthest = farthest[np.argsort(-distance[farthest], kind="stable")]
    for cluster, place in zip(empty, farthest, strict=True):
        if distance[place] == 0:
            break
        counts[owner[place]] -= 1
        totals[owner[place]] -= values[place]
        counts[cluster], totals[cluster] = 1, values[place]
