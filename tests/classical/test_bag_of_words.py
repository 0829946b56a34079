"""Dense SIFT, spatial pyramids and the intersection kernel against their definitions."""

import cv2
import numpy as np
import pytest
import skimage.data

from jaxvision.classical import bag_of_words as bags
from jaxvision.errors import UserError

PHOTO = skimage.data.astronaut()[60:140, 160:260]


def test_the_grid_is_centred():
    places = bags.grid((28, 28), 4, 16)
    assert places.shape == (16, 2)
    np.testing.assert_array_equal(np.unique(places), [7.5, 11.5, 15.5, 19.5])
    np.testing.assert_allclose(places.mean(0), [13.5, 13.5])
    assert bags.grid((30, 17), 4, 16).shape == (4, 2)
    with pytest.raises(UserError, match="a patch has 1 to 8 pixels"):
        bags.grid((8, 9), 4, 16)


def test_descriptors_are_opencvs_in_the_order_of_the_grid():
    places = bags.grid(PHOTO.shape[:2], 8, 16)
    found = bags.dense_sift(np.stack([PHOTO, PHOTO[::-1]]), places, 16)
    assert found.shape == (2, 9 * 11, 128)
    assert found.dtype == np.uint8
    grey = cv2.cvtColor(PHOTO, cv2.COLOR_RGB2GRAY)
    for index in (0, 17, 98):
        y, x = places[index]
        point = cv2.KeyPoint(float(x), float(y), 16 / 6, 0)
        _, one = cv2.SIFT_create().compute(grey, [point])
        np.testing.assert_array_equal(found[0, index], one[0])
    same = bags.dense_sift(grey[None, ..., None], places, 16)
    np.testing.assert_array_equal(same[0], found[0])
    assert bags.dense_sift(np.zeros((0, 80, 100, 1), np.uint8), places, 16).shape == (0, 99, 128)


def test_the_pyramid_of_three_levels():
    # Four patches, one in each quarter; words 0, 0, 1, 2.
    places = np.array([[2, 2], [2, 7], [7, 2], [7, 7]], np.float32)
    cells = bags.pyramid_cells(places, (8, 8), 3)
    assert cells.shape == (4, 1 + 4 + 16)
    np.testing.assert_allclose(cells.sum(1), 1 / 4 + 1 / 4 + 1 / 2)  # Lazebnik's weights
    histogram = np.asarray(bags.pyramid_histogram(np.array([[0, 0, 1, 2]]), cells, 3, "none"))[0]
    by_cell = histogram.reshape(21, 3)
    np.testing.assert_allclose(by_cell[0], [0.5, 0.25, 0.25])
    np.testing.assert_allclose(by_cell[1:5] * 4, [[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    np.testing.assert_allclose(by_cell[5:].sum(0), [1, 0.5, 0.5])
    # Places 2 and 7 of 8 lie in quarters 1 and 3 of each axis.
    assert [int(np.flatnonzero(row)[0]) for row in cells[:, 5:]] == [5, 7, 13, 15]
    with pytest.raises(UserError, match="at least 1"):
        bags.pyramid_cells(places, (8, 8), 0)


@pytest.mark.parametrize("norm", ["l1", "l2", "power"])
def test_norms(norm):
    words = np.array([[0, 0, 0, 1]])
    found = np.asarray(bags.pyramid_histogram(words, np.ones((4, 1), np.float32), 3, norm))[0]
    expected = {
        "l1": [0.75, 0.25, 0],
        "l2": np.array([3, 1, 0]) / np.sqrt(10),
        "power": np.sqrt([3, 1, 0]) / 2,
    }
    np.testing.assert_allclose(found, expected[norm], rtol=1e-6)
    with pytest.raises(UserError, match=r"Did you mean 'power'"):
        bags.pyramid_histogram(words, np.ones((4, 1), np.float32), 3, "powre")


def test_histogram_intersection_and_its_features():
    rng = np.random.default_rng(0)
    a, b = (rng.random((n, 33)).astype(np.float32) for n in (300, 40))
    kernel = bags.histogram_intersection(a, b)
    expected = np.minimum(a[:, None], b[None]).sum(-1)
    np.testing.assert_allclose(kernel, expected, rtol=1e-4)
    among = bags.histogram_intersection(b, b)
    of_b = bags.kernel_features(among, among)
    np.testing.assert_allclose(of_b @ of_b.T, among, atol=1e-3)
    of_a = bags.kernel_features(among, kernel)
    np.testing.assert_allclose(of_a @ of_b.T, kernel, atol=5e-3)


def test_words_and_samples():
    rng = np.random.default_rng(0)
    descriptors = rng.integers(0, 256, (3, 5, 128)).astype(np.uint8)
    vocabulary = descriptors.reshape(-1, 128)[[2, 0, 14]].astype(np.float32)
    words = np.asarray(bags.words_of(descriptors, vocabulary))
    assert words.shape == (3, 5)
    assert (words[0, 2], words[0, 0], words[2, 4]) == (0, 1, 2)
    drawn = bags.sample_descriptors(descriptors, 7)
    assert len(np.unique(drawn, axis=0)) == 7
    assert bags.sample_descriptors(descriptors, 99).shape == (15, 128)
