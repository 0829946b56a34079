"""Mean shift against scikit-learn's."""

import numpy as np
import pytest
import sklearn.cluster
from skimage.data import astronaut
from sklearn.datasets import make_blobs

from jaxvision.classical.mean_shift import bin_seeds, estimate_bandwidth, mean_shift
from jaxvision.errors import UserError


@pytest.fixture(scope="module")
def blobs():
    return make_blobs(2000, 3, centers=6, cluster_std=0.8, random_state=1)[0].astype(np.float32)


def assert_equal_to_sklearn(points, bandwidth, found):
    peer = sklearn.cluster.MeanShift(bandwidth=bandwidth, bin_seeding=True).fit(points)
    assert len(found.centers) == len(peer.cluster_centers_)
    away = np.linalg.norm(found.centers[:, None] - peer.cluster_centers_, axis=-1)
    # A point at the rim of a window decides where one mode ends, and rounding on which side it is.
    error = np.sort(away.min(1)) / bandwidth
    assert error[-1] < 0.2
    assert len(error) < 2 or error[-2] < 1e-2
    same = away.argmin(1)[np.asarray(found.labels)] == peer.labels_
    assert same.mean() > 0.995


@pytest.mark.parametrize("bandwidth", [1.0, 2.0, 5.0])
def test_equals_sklearn(blobs, bandwidth):
    assert_equal_to_sklearn(blobs, bandwidth, mean_shift(blobs, bandwidth))


@pytest.mark.slow
def test_equals_sklearn_on_a_photograph():
    image = astronaut()[::8, ::8].astype(np.float32) / 255
    rows, columns = np.mgrid[:64, :64] / np.float32(64)
    points = np.concatenate([image, rows[..., None], columns[..., None]], -1).reshape(-1, 5)
    for bandwidth in (0.2, 0.4):
        found = mean_shift(points.astype(np.float32), bandwidth)
        assert_equal_to_sklearn(points, bandwidth, found)


def test_the_estimated_bandwidth_is_sklearns(blobs):
    some = blobs[:500]
    for quantile in (0.001, 0.1, 0.3, 1.0):
        expected = sklearn.cluster.estimate_bandwidth(some, quantile=quantile)
        assert estimate_bandwidth(some, quantile) == pytest.approx(expected, rel=1e-5, abs=1e-6)
    drawn = estimate_bandwidth(blobs, 0.3, samples=300)
    assert drawn == pytest.approx(estimate_bandwidth(blobs, 0.3, samples=None), rel=0.05)


def test_seeds_are_sklearns_cells(blobs):
    for size in (0.5, 3.0):
        expected = sklearn.cluster.get_bin_seeds(blobs, size)
        found = bin_seeds(blobs, size)
        np.testing.assert_allclose(sorted(found.tolist()), sorted(expected.tolist()), atol=1e-5)
    tight = bin_seeds(blobs, 3.0, min_bin_freq=100)
    assert 0 < len(tight) < len(bin_seeds(blobs, 3.0))
    assert bin_seeds(blobs[:3], 1e-3) is not None
    np.testing.assert_array_equal(bin_seeds(blobs[:3], 1e-3), blobs[:3])


def test_the_gaussian_kernel_finds_the_modes(blobs):
    found = mean_shift(blobs, 0.8, kernel="gaussian")
    peer = sklearn.cluster.MeanShift(bandwidth=2.0, bin_seeding=True).fit(blobs)
    away = np.linalg.norm(found.centers[:, None] - peer.cluster_centers_, axis=-1).min(1)
    assert len(found.centers) == len(peer.cluster_centers_)
    assert away.max() < 0.3
    # At rest the weighted mean is the mode itself.
    for center in found.centers:
        squared = ((blobs - center) ** 2).sum(-1)
        weight = np.exp(-squared / (2 * 0.8**2)) * (squared <= (3 * 0.8) ** 2)
        mean = weight @ blobs / weight.sum()
        assert np.linalg.norm(mean - center) < 2e-3


def test_the_order_of_the_points_does_not_matter(blobs):
    order = np.random.default_rng(0).permutation(len(blobs))
    one, other = mean_shift(blobs, 2.0), mean_shift(blobs[order], 2.0)
    np.testing.assert_allclose(one.centers, other.centers, atol=1e-2)
    np.testing.assert_array_equal(np.asarray(one.labels)[order], other.labels)


def test_points_without_spread():
    for count in (1, 5, 700):
        found = mean_shift(np.full((count, 2), 3.0, np.float32))
        np.testing.assert_allclose(found.centers, [[3, 3]])
        np.testing.assert_array_equal(found.labels, np.zeros(count))


def test_bad_input_is_refused(blobs):
    with pytest.raises(UserError, match=r"bandwidth=0.0 must be positive"):
        mean_shift(blobs, 0.0)
    with pytest.raises(UserError, match="Did you mean 'gaussian'"):
        mean_shift(blobs, 1.0, kernel="gausian")
    with pytest.raises(UserError, match="Points must be finite"):
        mean_shift(blobs * np.nan, 1.0)
    with pytest.raises(UserError, match="No point lies within the bandwidth 1 of a seed"):
        mean_shift(blobs, 1.0, seeds=np.full((2, 3), 1e4, np.float32))
    with pytest.raises(UserError, match="Seeds have 2 dimensions, points 3"):
        mean_shift(blobs, 1.0, seeds=blobs[:, :2])
    with pytest.raises(UserError, match="max_iter=0"):
        mean_shift(blobs, 1.0, max_iter=0)
    with pytest.raises(UserError, match=r"quantile=0.0 is from 0 to 1"):
        estimate_bandwidth(blobs, 0.0)
