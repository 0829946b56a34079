"""Wilson's interval, by what defines it."""

import math

import pytest

from jaxvision.metrics import wilson_interval


@pytest.mark.parametrize(("hits", "count"), [(1, 10), (5, 7), (340, 360)])
def test_both_ends_are_so_many_deviations_away(hits, count):
    for end in wilson_interval(hits, count, 1.5):
        away = abs(hits / count - end) / math.sqrt(end * (1 - end) / count)
        assert away == pytest.approx(1.5)


def test_a_share_of_none_and_of_all():
    low, high = wilson_interval(0, 10)
    assert (low, high) == (0.0, pytest.approx(0.2775, abs=1e-4))  # as published tables have it
    assert wilson_interval(10, 10) == pytest.approx((1 - high, 1.0))
    assert wilson_interval(0, 0) == (0.0, 1.0)
