"""Distances between sets of features, against what others compute and by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics.pairwise import polynomial_kernel
from sklearn.neighbors import NearestNeighbors

from jaxvision.errors import UserError
from jaxvision.metrics import features


@given(st.integers(0, 2**31), st.integers(2, 12), st.integers(2, 12))
def test_the_kernel_distance_is_the_unbiased_mean_of_kernels(seed, n, m):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(n, 5)), rng.normal(1, 2, size=(m, 5))
    same = [polynomial_kernel(x, degree=3) for x in (a, b)]
    expected = sum(k[~np.eye(len(k), dtype=bool)].mean() for k in same)
    expected -= 2 * polynomial_kernel(a, b, degree=3).mean()
    assert features.kernel_distance(a, b) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_the_kernel_distance_by_hand():
    a, b = np.array([[1.0], [0.0]]), np.array([[2.0], [1.0]])
    # Pairs within: (1*0+1)^3 = 1 and (2*1+1)^3 = 27; across: 27, 8, 1, 1.
    assert features.kernel_distance(a, b) == pytest.approx(1 + 27 - 2 * 37 / 4)


@given(st.integers(0, 2**31), st.integers(1, 4))
def test_precision_and_recall_are_those_of_nearest_neighbours(seed, k):
    rng = np.random.default_rng(seed)
    real, fake = rng.normal(size=(30, 3)), rng.normal(0.5, 0.7, size=(20, 3))

    def within(points, others):
        reach = NearestNeighbors(n_neighbors=k + 1).fit(others).kneighbors(others)[0][:, -1]
        distances = np.linalg.norm(points[:, None] - others, axis=2)
        return np.mean((distances <= reach).any(1))

    expected = within(fake, real), within(real, fake)
    assert features.precision_and_recall(real, fake, k) == pytest.approx(expected)


def test_a_collapsed_generator_is_precise_and_recalls_little():
    real = np.arange(20.0)[:, None]
    fake = 10 + np.arange(8.0)[:, None] / 100
    precision, recall = features.precision_and_recall(real, fake, neighbours=2)
    assert precision == 1.0
    assert recall == 1 / 20


def test_the_inception_score_is_one_of_noise_and_the_number_of_classes_of_all_of_them():
    assert features.inception_score(np.full((6, 4), 0.25)) == pytest.approx(1)
    assert features.inception_score(np.tile(np.eye(4), (3, 1))) == pytest.approx(4)
    assert features.inception_score(np.repeat(np.eye(4), 3, 0), splits=4) == pytest.approx(1)
    one = np.array([[0.9, 0.1], [0.5, 0.5]])
    marginal = np.array([0.7, 0.3])
    expected = math.exp(np.sum(one * np.log(one / marginal)) / 2)
    assert features.inception_score(one) == pytest.approx(expected)


def test_too_few_images_are_an_error():
    few = np.zeros((1, 2))
    with pytest.raises(UserError, match=r"kernel distance needs 2 images or more.*got 1, 1"):
        features.kernel_distance(few, few)
    with pytest.raises(UserError, match=r"3\. neighbour needs 4 images or more.*got 3, 3"):
        features.precision_and_recall(np.zeros((3, 2)), np.zeros((3, 2)))
    with pytest.raises(UserError, match="needs 2 images or more in a set; got 1"):
        features.inception_score(few, splits=2)
