"""The Fréchet distance against its definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from jaxvision.errors import UserError
from jaxvision.metrics import frechet_distance


@given(st.integers(0, 2**31), st.integers(1, 6))
def test_it_is_its_definition(seed, width):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(40, width)) @ rng.normal(size=(width, width))
    b = rng.normal(size=(50, width)) + rng.normal(size=width)
    covariances = [np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b)]
    root = np.real(sqrtm(covariances[0] @ covariances[1]))
    expected = np.square(a.mean(0) - b.mean(0)).sum()
    expected += np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_equal_sets_are_at_no_distance_and_shifted_ones_at_the_squared_shift():
    a = np.random.default_rng(0).normal(size=(30, 3))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + np.array([3.0, 4.0, 0.0])) == pytest.approx(25, rel=1e-9)


def test_one_vector_has_no_covariance():
    with pytest.raises(UserError, match="two vectors or more; got 1, 5"):
        frechet_distance(np.zeros((1, 2)), np.zeros((5, 2)))
