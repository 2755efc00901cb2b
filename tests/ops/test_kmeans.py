# SPDX-License-Identifier: Apache-2.0
"""k-means on a line: by hand, against plain loops, against scikit-learn."""

import numpy as np
import pytest

from efficient_layers.ops.kmeans import STARTS, first_centroids, kmeans, nearest

pytestmark = pytest.mark.fast


def plain(values, start):
    """Lloyd's algorithm as it is written: distances of all to all."""
    centroids = np.sort(np.array(start, np.float64))
    while True:
        labels = np.abs(values[:, None] - centroids).argmin(1)
        moved = np.array([values[labels == k].mean() for k in range(len(centroids))])
        if np.array_equal(moved, centroids):
            return centroids
        centroids = moved


def test_by_hand():
    """0 1 2 | 10: first (0 1) and (2 10), whose means .5 and 6 let 2 go to the first."""
    np.testing.assert_array_equal(
        kmeans(np.array([10.0, 1.0, 0.0, 2.0]), np.array([0.0, 3.0])), [1.0, 10.0]
    )
    np.testing.assert_array_equal(
        nearest(np.array([0.0, 5.5, 5.6, 99.0]), np.array([1.0, 10.0])), [0, 0, 1, 1]
    )


def test_an_empty_cluster_gets_the_farthest_value():
    """From 0, 50, 100 the middle one is empty; 40 is the farthest, and takes it."""
    values = np.array([0.0, 1.0, 2.0, 21.0, 99.0, 100.0])
    np.testing.assert_array_equal(kmeans(values, np.array([0.0, 50.0, 100.0])), [1.0, 21.0, 99.5])


def test_fewer_values_than_centroids_are_all_exact():
    values = np.array([3.0, 1.0, 3.0, 2.0])
    centroids = kmeans(values, np.linspace(1, 3, 8))
    np.testing.assert_array_equal(centroids[nearest(values, centroids)], values)


@pytest.mark.parametrize("k", [2, 7, 16])
def test_plain_lloyd_gives_the_same(k):
    values = np.random.default_rng(k).normal(size=500)
    start = first_centroids(values, k, "density")
    np.testing.assert_allclose(kmeans(values, start), plain(values, start), atol=1e-12)


def test_starts():
    values = np.array([0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 8.0, 9.0])
    np.testing.assert_allclose(first_centroids(values, 4, "linear"), [0, 3, 6, 9])
    np.testing.assert_allclose(
        first_centroids(values, 2, "density"), np.quantile(values, [0.25, 0.75])
    )
    drawn = first_centroids(values, 3, "k-means++", seed=1)
    assert len(set(drawn)) == 3  # never a value twice: its distance is 0
    assert set(drawn) <= set(values)
    np.testing.assert_array_equal(drawn, first_centroids(values, 3, "k-means++", seed=1))


@pytest.mark.oracle
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("k", [4, 15, 64])
def test_scikit_learn_gives_the_same_centroids(start, k):
    """Linear starts of heavy tails have empty clusters, which both move in the same way."""
    cluster = pytest.importorskip("sklearn.cluster")
    values = np.random.default_rng(0).standard_t(4, size=3000)
    first = first_centroids(values, k, start)
    model = cluster.KMeans(k, init=first[:, None], n_init=1, tol=0, max_iter=1000)
    expected = np.sort(model.fit(values[:, None]).cluster_centers_.ravel())
    got = kmeans(values, first)
    np.testing.assert_allclose(got, expected, atol=1e-9)
    labels = np.argsort(np.argsort(model.cluster_centers_.ravel()))[model.labels_]
    np.testing.assert_array_equal(nearest(values, got), labels)
