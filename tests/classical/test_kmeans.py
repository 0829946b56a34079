"""k-means against scikit-learn's."""

from itertools import pairwise

import numpy as np
import pytest
import sklearn.cluster
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from jaxvision.classical import kmeans as module
from jaxvision.classical.kmeans import assign, kmeans, kmeans_of_shapes
from jaxvision.errors import UserError


@pytest.fixture(scope="module")
def points():
    return load_digits().data.astype(np.float32)


@pytest.mark.parametrize("block", [8192, 500])
def test_equals_sklearn_from_the_same_start(points, block, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", block)
    module.in_blocks.clear_cache()
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


def test_each_rule_ends_a_run(points):
    starts = points[:10]
    free = kmeans(points, 10, starts=starts, tol=0.0)
    assert free.stopped == "labels"
    capped = kmeans(points, 10, starts=starts, tol=0.0, max_iter=4)
    assert (capped.stopped, capped.iterations) == ("max_iter", 4)
    assert kmeans(points, 10, starts=starts, tol=1e-2).stopped == "centers"

    inertias, labels = [], []
    for iterations in range(1, free.iterations + 1):
        run = kmeans(points, 10, starts=starts, tol=0.0, max_iter=iterations)
        inertias.append(run.inertia)
        labels.append(np.asarray(run.labels))
    assert all(b <= a * (1 + 1e-6) for a, b in pairwise(inertias))
    # A run of i iterations gives the labels and the inertia that iteration i + 1 begins with.
    changes = [np.mean(a != b) for a, b in pairwise(labels)]

    few = kmeans(points, 10, starts=starts, tol=0.0, max_changes=0.01)
    assert few.stopped == "labels"
    assert few.iterations == 3 + next(i for i, share in enumerate(changes) if share <= 0.01)
    slow = kmeans(points, 10, starts=starts, tol=0.0, objective_tol=1e-3)
    gains = [1 - b / a for a, b in pairwise(inertias)]
    assert slow.stopped == "objective"
    assert slow.iterations == 3 + next(i for i, gain in enumerate(gains) if gain < 1e-3)


def test_random_starts_are_different_points(points):
    found = [kmeans(points, 10, init="random", seed=seed).inertia for seed in range(3)]
    assert max(found) < 1.1 * min(found)
    assert kmeans(points[:10], 10, init="random").inertia == pytest.approx(0, abs=1e-3)
    best = kmeans(points, 10, init="random", n_init=3)
    assert best.inertia <= kmeans(points, 10, init="random").inertia * 1.01


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.integers(-5, 5), min_size=2, max_size=2), min_size=1, max_size=30),
    st.sampled_from([1, 4, 30]),
)
def test_any_points_get_labels_in_range_and_means(rows, k):
    points = np.asarray(rows, np.float32)
    padded = np.concatenate([points, np.repeat(points[:1], 30 - len(points), 0)])
    found = kmeans(padded, k)
    labels = np.asarray(found.labels)
    assert ((labels >= 0) & (labels < k)).all()
    centers = np.asarray(found.centers)
    away = ((padded[:, None] - centers) ** 2).sum(-1)
    np.testing.assert_allclose(away[np.arange(30), labels], away.min(1), atol=1e-4)
    assert found.inertia == pytest.approx(away.min(1).sum(), abs=1e-3)


def test_bad_input_is_refused(points):
    with pytest.raises(UserError, match="Did you mean 'random'"):
        kmeans(points, 5, init="randon")
    with pytest.raises(UserError, match=r"max_changes=2.0 is a share"):
        kmeans(points, 5, max_changes=2.0)
    with pytest.raises(UserError, match=r"objective_tol=-1.* must be at least 0"):
        kmeans(points, 5, objective_tol=-1.0)
    with pytest.raises(UserError, match="Points must be finite"):
        kmeans(points + np.nan, 5)
    with pytest.raises(UserError, match="k is from 1 to 4"):
        kmeans(points[:4], 5)
    with pytest.raises(UserError, match=r"Starts are \[3, 64\], not \[2, 64\]"):
        kmeans(points, 2, starts=points[:3])
    with pytest.raises(UserError, match="n_init=0"):
        kmeans(points, 2, n_init=0)


def test_shapes_are_compared_by_their_overlap():
    """Flat and tall ones are apart, small as they are; 100 and 120 are alike."""
    shapes = np.float32([[1, 10], [100, 100], [10, 1], [120, 100]])
    found, overlap = kmeans_of_shapes(shapes, 3)
    assert sorted(map(tuple, found[:2])) == [(1, 10), (10, 1)]
    np.testing.assert_allclose(found[2], [110, 100])
    assert overlap == pytest.approx((1 + 1 + 100 / 110 + 110 / 120) / 4)
    one, _ = kmeans_of_shapes(shapes, 1)
    np.testing.assert_allclose(one, [shapes.mean(0)])
    every, whole = kmeans_of_shapes(np.repeat(shapes, 3, 0), 4)
    assert whole == pytest.approx(1)
    assert {tuple(shape) for shape in every} == {tuple(shape) for shape in shapes}
    assert (np.diff(every.prod(1)) >= 0).all()


def test_shapes_that_cannot_be_clustered_are_refused():
    with pytest.raises(UserError, match="k=3 clusters of 2 different shapes"):
        kmeans_of_shapes(np.float32([[1, 2], [1, 2], [3, 4]]), 3)
    for wrong in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(UserError, match="finite and above 0"):
            kmeans_of_shapes(np.float32([[1, 2], [wrong, 4]]), 1)
