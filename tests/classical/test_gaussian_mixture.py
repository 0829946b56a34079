"""Mixtures of Gaussians against scikit-learn's."""

from itertools import pairwise

import numpy as np
import pytest
import sklearn.mixture
from sklearn.datasets import load_iris

from jaxvision.classical.gaussian_mixture import COVARIANCES, gaussian_mixture, responsibilities
from jaxvision.errors import UserError


@pytest.fixture(scope="module")
def points():
    return load_iris().data.astype(np.float32)


def moments(points, labels, covariance, reg_covar=1e-6):
    """scikit-learn's start from hard labels: weights, means, precisions."""
    points, ks = points.astype(float), range(labels.max() + 1)
    parts = [points[labels == k] for k in ks]
    full = [np.cov(p.T, bias=True) + reg_covar * np.eye(points.shape[1]) for p in parts]
    precisions = {
        "full": lambda: [np.linalg.inv(c) for c in full],
        "diag": lambda: [1 / np.diag(c) for c in full],
        "spherical": lambda: [1 / np.diag(c).mean() for c in full],
    }[covariance]()
    weights = np.bincount(labels) / len(labels)
    return {
        "weights_init": weights,
        "means_init": np.stack([p.mean(0) for p in parts]),
        "precisions_init": np.asarray(precisions),
    }


def nearest(points, starts):
    return ((points[:, None] - starts) ** 2).sum(-1).argmin(1)


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("options", [{}, {"tol": 0.0, "max_iter": 7}, {"reg_covar": 0.1}])
def test_equals_sklearn_from_the_same_start(points, covariance, options):
    starts = points[[0, 60, 120]]
    begin = moments(points, nearest(points, starts), covariance, options.get("reg_covar", 1e-6))
    peer = sklearn.mixture.GaussianMixture(3, covariance_type=covariance, **begin, **options)
    peer.fit(points.astype(float))
    found = gaussian_mixture(points, 3, covariance, starts=starts, **options)
    assert found.lower_bound == pytest.approx(peer.lower_bound_, abs=1e-4)
    assert (found.iterations, found.converged) == (peer.n_iter_, peer.converged_)
    np.testing.assert_allclose(found.weights, peer.weights_, atol=1e-4)
    np.testing.assert_allclose(found.means, peer.means_, atol=1e-3)
    np.testing.assert_allclose(found.covariances, peer.covariances_, atol=1e-3)
    np.testing.assert_array_equal(found.labels, peer.predict(points))
    share, likelihood = responsibilities(points, found)
    np.testing.assert_allclose(share, peer.predict_proba(points), atol=2e-3)
    np.testing.assert_allclose(likelihood, peer.score_samples(points), atol=5e-3)


def test_small_clusters_far_apart_survive_32_bits():
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0], [100, 0], [0, 100]])
    truth = np.repeat(np.arange(3), 5000)
    points = (centres[truth] + 0.01 * rng.normal(size=(15000, 2))).astype(np.float32)
    found = gaussian_mixture(points, 3)
    assert len(set(zip(truth, np.asarray(found.labels)))) == 3
    spread = np.asarray(found.covariances)
    np.testing.assert_allclose(spread, np.broadcast_to(1e-4 * np.eye(2), (3, 2, 2)), atol=1e-5)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_the_bound_never_falls_and_several_starts_help(points, covariance):
    starts = points[[0, 1, 2, 3]]
    bounds = [
        gaussian_mixture(
            points, 4, covariance, starts=starts, tol=0.0, max_iter=i, reg_covar=0.0
        ).lower_bound
        for i in range(1, 10)
    ]
    assert all(b >= a - 1e-5 for a, b in pairwise(bounds))
    many = gaussian_mixture(points, 4, covariance, n_init=3)
    assert many.lower_bound >= gaussian_mixture(points, 4, covariance).lower_bound - 1e-6


def test_the_order_of_the_points_does_not_matter(points):
    order = np.random.default_rng(0).permutation(len(points))
    starts = points[[0, 60, 120]]
    one = gaussian_mixture(points, 3, starts=starts)
    other = gaussian_mixture(points[order], 3, starts=starts)
    np.testing.assert_allclose(one.means, other.means, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(one.labels)[order], other.labels)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_points_without_spread(covariance):
    same = np.ones((20, 3), np.float32)
    for points in (same, same[:1], np.concatenate([same, same + 1])):
        found = gaussian_mixture(points, min(2, len(points)), covariance)
        assert np.isfinite(found.lower_bound)
        assert np.isfinite(found.means).all()
    labels = np.asarray(found.labels)
    assert len(set(labels[:20])) == 1
    assert labels[0] != labels[-1]


def test_bad_input_is_refused(points):
    with pytest.raises(UserError, match="Did you mean 'spherical'"):
        gaussian_mixture(points, 3, "sperical")
    with pytest.raises(UserError, match="k is from 1 to 150"):
        gaussian_mixture(points, 151)
    with pytest.raises(UserError, match=r"Starts are \[2, 4\]"):
        gaussian_mixture(points, 3, starts=points[:2])
    with pytest.raises(UserError, match=r"reg_covar=-1.0 must be at least 0"):
        gaussian_mixture(points, 3, reg_covar=-1.0)
    with pytest.raises(UserError, match="Points must be finite"):
        gaussian_mixture(points * np.inf, 3)
    with pytest.raises(UserError, match=r"A covariance is singular; raise reg_covar=0.0"):
        gaussian_mixture(np.ones((9, 2), np.float32), 2, reg_covar=0.0)
