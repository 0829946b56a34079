"""k-means against scikit-learn's."""

import jax
import numpy as np
import pytest
import sklearn.cluster
from sklearn.datasets import load_digits

from jaxvision.classical import kmeans as module
from jaxvision.classical.kmeans import assign, kmeans
from jaxvision.errors import UserError


@pytest.fixture(scope="module")
def points():
    return load_digits().data.astype(np.float32)


@pytest.mark.parametrize("block", [8192, 500])
def test_equals_sklearn_from_the_same_start(points, block, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", block)
    jax.clear_caches()
    starts = points[:10]
    peer = sklearn.cluster.KMeans(10, init=starts.astype(float), n_init=1, tol=0.0).fit(
        points.astype(float)
    )
    found = kmeans(points, 10, starts=starts, tol=0.0)
    np.testing.assert_array_equal(found.labels, peer.labels_)
    np.testing.assert_allclose(found.centers, peer.cluster_centers_, atol=1e-4)
    assert found.inertia == pytest.approx(peer.inertia_, rel=1e-5)
    assert found.iterations == peer.n_iter_


def test_tolerance_and_max_iter_stop_as_in_sklearn(points):
    for options in ({"tol": 1e-2}, {"max_iter": 3, "tol": 0.0}):
        peer = sklearn.cluster.KMeans(10, init=points[:10].astype(float), n_init=1, **options)
        peer.fit(points.astype(float))
        found = kmeans(points, 10, starts=points[:10], **options)
        assert found.iterations == peer.n_iter_
        np.testing.assert_allclose(found.centers, peer.cluster_centers_, atol=1e-4)
        assert found.inertia == pytest.approx(peer.inertia_, rel=1e-5)


def test_an_empty_cluster_takes_the_farthest_point():
    points = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1], [9, 9], [30, 0]], np.float32)
    starts = np.array([[0.5, 0.5], [10, 10], [500, 500], [600, 600]], np.float32)
    peer = sklearn.cluster.KMeans(4, init=starts.astype(float), n_init=1, tol=0.0).fit(
        points.astype(float)
    )
    found = kmeans(points, 4, starts=starts, tol=0.0)
    assert len(set(np.asarray(found.labels))) == 4
    assert found.inertia == pytest.approx(peer.inertia_, abs=1e-4)


def test_plus_plus_starts_find_clusters_that_are_apart():
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(20), 50)
    centres = rng.permutation(np.stack(np.meshgrid(np.arange(5), np.arange(4)), -1).reshape(-1, 2))
    points = (centres[truth] * 10 + rng.normal(size=(1000, 2))).astype(np.float32)
    found = kmeans(points, 20, n_init=3)
    assert all(len(np.unique(np.asarray(found.labels)[truth == c])) == 1 for c in range(20))
    assert found.inertia == pytest.approx(2000, rel=0.1)
    again = kmeans(points, 20, n_init=3)
    np.testing.assert_array_equal(found.centers, again.centers)


def test_the_best_of_several_runs_is_as_good_as_sklearns(points):
    peer = sklearn.cluster.KMeans(10, n_init=5, random_state=0).fit(points)
    assert kmeans(points, 10, n_init=5, seed=0).inertia < 1.01 * peer.inertia_


def test_assign_gives_the_labels(points):
    found = kmeans(points, 5)
    np.testing.assert_array_equal(assign(points, found.centers), found.labels)
    assert assign(points[:0], found.centers).shape == (0,)


def test_as_many_clusters_as_points_and_equal_points():
    points = np.arange(6, dtype=np.float32)[:, None]
    assert kmeans(points, 6).inertia == pytest.approx(0, abs=1e-6)
    same = kmeans(np.ones((5, 2), np.float32), 3)
    assert same.inertia == 0
    np.testing.assert_array_equal(same.centers, 1)


def test_bad_input_is_refused(points):
    with pytest.raises(UserError, match="k is from 1 to 4"):
        kmeans(points[:4], 5)
    with pytest.raises(UserError, match=r"Starts are \[3, 64\], not \[2, 64\]"):
        kmeans(points, 2, starts=points[:3])
    with pytest.raises(UserError, match="n_init=0"):
        kmeans(points, 2, n_init=0)
