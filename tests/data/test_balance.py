"""Records of rare classes come more often, and every epoch is decided by the seed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvision.data import balance
from jaxvision.data.order import Order
from jaxvision.data.stream import open_stream
from jaxvision.tasks import configuration

PRESENT = np.array([[1, 0, 0]] * 8 + [[1, 1, 0]] * 1 + [[1, 0, 1]] * 1, bool)


def test_repeat_factors_are_those_of_lvis():
    found = balance.shares(PRESENT, 0.4)
    np.testing.assert_allclose(found[:8], found[0])
    np.testing.assert_allclose(found[8] / found[0], np.sqrt(0.4 / 0.1))
    assert found.sum() == pytest.approx(1)
    np.testing.assert_allclose(balance.shares(PRESENT, 0.1), 0.1)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 60))
def test_an_epoch_has_each_record_as_often_as_its_share_says(seed, count):
    rng = np.random.default_rng(seed)
    share = rng.random(count) ** 2 + 1e-3
    share /= share.sum()
    drawn = balance.draw(share, np.random.default_rng(seed))
    assert len(drawn) == count
    assert (np.abs(np.bincount(drawn, minlength=count) - count * share) <= 1).all()


def test_order_is_a_function_of_seed_and_epoch():
    shares = balance.shares(PRESENT, 0.4)
    first, again = Order(10, 3, True, shares), Order(10, 3, True, shares)
    positions = range(25)
    assert [first(p) for p in positions] == [again(p) for p in positions]
    np.testing.assert_array_equal(first.indices(positions), [first(p)[1] for p in positions])
    epochs = [sorted(first(p)[1] for p in range(e, e + 10)) for e in (0, 10)]
    assert epochs[0] != list(range(10))  # the rare ones come twice


def test_masks_of_rare_classes_are_found():
    config = configuration.default_config()
    config.task = "segmentation"
    config.data.name, config.data.options = "shapes", {"size": 16, "train": 24, "test": 4}
    config.data.classes = tuple("abcdefghijk")
    config.data.balance = 0.9
    stream = open_stream(config.data, "train", seed=0, train=True, annotations=("segmentation",))
    shares = stream.order.shares
    rarest = [
        len(np.unique(stream.decode(stream.source[i], "")["segmentation"])) for i in range(24)
    ]
    assert shares.max() > 1.2 * shares.min()
    assert np.corrcoef(shares, rarest)[0, 1] > 0
    evaluated = open_stream(config.data, "test", seed=0, train=False)
    assert evaluated.order.shares is None
