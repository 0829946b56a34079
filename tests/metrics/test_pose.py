"""PCK by hand, on the host and on the device."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.metrics.pose import box_lengths, hits, pck, segment_lengths

TRUTH = np.float32([
    [[0, 0, 1], [6, 8, 1], [20, 0, 2]],
    [[5, 5, 1], [5, 9, 0], [9, 9, 1]],
    [[1, 1, 0], [2, 2, 0], [3, 3, 0]],
])  # fmt: skip
FOUND = np.float32([
    [[0, 2, 0.9], [6, 10.1, 0.8], [22, 0, 0.1]],
    [[5, 5, 0.5], [5, 9, 0.5], [9, 5, 0.5]],
    [[1, 1, 0], [2, 2, 0], [3, 3, 0]],
])  # fmt: skip
NAMES = ("a", "b", "c")


@pytest.mark.parametrize("on", [np, jnp], ids=["host", "device"])
def test_pck_by_hand(on):
    lengths = on.asarray(np.float32([10, 20, 10]))
    hit, counted = hits(on.asarray(FOUND), on.asarray(TRUTH), lengths, 0.2)
    # 2 pixels are allowed in the first, 4 in the second; at the limit is within.
    np.testing.assert_array_equal(hit, [[1, 0, 1], [1, 0, 1], [0, 0, 0]])
    np.testing.assert_array_equal(counted, [[1, 1, 1], [1, 0, 1], [0, 0, 0]])
    scores = pck(np.asarray(hit), np.asarray(counted), NAMES)
    assert scores == {"pck": 4 / 5, "pck/a": 1.0, "pck/b": 0.0, "pck/c": 1.0}


@pytest.mark.parametrize("on", [np, jnp], ids=["host", "device"])
def test_reference_lengths(on):
    boxes = on.asarray(np.float32([[1, 2, 4, 12], [0, 0, 0, 0]]))
    assert box_lengths(boxes).tolist() == [10, 0]
    lengths = segment_lengths(on.asarray(TRUTH), 0, 1)
    assert lengths.tolist() == [10, 0, 0]  # one end of the second's is not labelled
    _, counted = hits(on.asarray(FOUND), on.asarray(TRUTH), lengths, 0.5)
    assert counted.sum(1).tolist() == [3, 0, 0]


def test_nothing_to_find():
    nothing = np.zeros((2, 3), bool)
    assert all(np.isnan(value) for value in pck(nothing, nothing, NAMES).values())
    one = np.array([[True, False, False]])
    scores = pck(one, one, NAMES)
    assert (scores["pck"], scores["pck/a"]) == (1, 1)
    assert np.isnan(scores["pck/b"])
