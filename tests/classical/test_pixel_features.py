"""Features of pixels, superpixels and what is read off them, against scikit-image and SciPy."""

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import color, data, measure, segmentation

from jaxvision.classical import pixel_features as features
from jaxvision.classical import superpixels
from jaxvision.errors import UserError


@pytest.fixture(scope="module")
def photo():
    return np.ascontiguousarray(data.chelsea()[::4, ::4])


def test_colours_are_skimages(photo):
    every = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    every[0, :2] = [[0, 0, 0], [255, 255, 255]]
    for image in (photo, every):
        np.testing.assert_allclose(features.lab(image), color.rgb2lab(image), atol=1e-3)
        grey = color.rgb2gray(image)[..., None]
        np.testing.assert_allclose(features.intensity(image), grey, atol=1e-5)


def test_position_is_in_units_of_the_longer_side():
    found = np.asarray(features.position(2, 4))
    np.testing.assert_allclose(found[1], [[0.25, 0], [0.25, 0.25], [0.25, 0.5], [0.25, 0.75]])


def test_texture_is_that_of_scipys_correlations(photo):
    grey = np.asarray(features.intensity(photo))[..., 0]
    found = np.asarray(features.texture(grey))
    assert found.shape == (*grey.shape, 12)
    for scale, part in ((1.0, found[..., :6]), (2.0, found[..., 6:])):
        filters = features.oriented_filters(scale)
        for angle in (0, 2):
            pair = (filters[angle], filters[angle + 6])
            energy = sum(scipy.ndimage.correlate(grey, f, mode="reflect") ** 2 for f in pair)
            expected = scipy.ndimage.gaussian_filter(
                np.sqrt(energy), 3 * scale, mode="reflect", truncate=3.0
            )
            np.testing.assert_allclose(part[..., angle], expected, atol=1e-5)


def test_stripes_excite_the_filters_along_them():
    across = np.sin(np.arange(48) * 1.2)
    rows = np.asarray(features.texture(np.tile(across[:, None], (1, 48)).astype(np.float32)))
    columns = np.asarray(features.texture(np.tile(across, (48, 1)).astype(np.float32)))
    assert rows[24, 24, :6].argmax() == 0
    assert columns[24, 24, :6].argmax() == 3  # 90 degrees


def test_groups_have_variance_by_their_weights(photo):
    names = ("colour", "position", "texture")
    found = np.asarray(features.features(photo, names, {"position": 0.5}))
    assert found.shape == (*photo.shape[:2], 17)
    variance = found.var((0, 1))
    parts = [variance[:3].sum(), variance[3:5].sum(), variance[5:].sum()]
    np.testing.assert_allclose(parts, [1, 0.25, 1], rtol=1e-4)
    np.testing.assert_allclose(found.mean((0, 1)), 0, atol=1e-4)
    maps = np.random.default_rng(0).normal(size=(*photo.shape[:2], 9)).astype(np.float32)
    both = features.features(photo, ("rgb", "network"), extra={"network": maps})
    assert both.shape[-1] == 12


def test_what_is_the_same_everywhere_is_zero():
    for value in (0, 7, 255):
        flat = np.full((20, 30, 3), value, np.uint8)
        names = ("intensity", "colour", "rgb", "texture")
        assert not np.asarray(features.features(flat, names)).any()
    single = features.features(flat[:1, :1], ("colour", "position"))
    np.testing.assert_array_equal(single, np.zeros((1, 1, 5)))


def test_principal_components_are_the_best_of_their_number():
    rng = np.random.default_rng(0)
    maps = (rng.normal(size=(600, 3)) @ rng.normal(size=(3, 10))).astype(np.float32)
    maps = maps.reshape(20, 30, 10)
    found = np.asarray(features.principal(maps, 3))
    assert found.var((0, 1)).sum() == pytest.approx(maps.var((0, 1)).sum(), rel=1e-4)
    assert features.principal(maps, 20).shape == (20, 30, 10)


def test_bad_features_are_refused(photo):
    with pytest.raises(UserError, match="Did you mean 'colour'"):
        features.features(photo, ("color",))
    with pytest.raises(UserError, match="Features none: name at least one"):
        features.features(photo, ())
    with pytest.raises(UserError, match="Features rgb, rgb: name at least one, each once"):
        features.features(photo, ("rgb", "rgb"))
    with pytest.raises(UserError, match=r"The weight of rgb is -1.0"):
        features.features(photo, ("rgb",), {"rgb": -1.0})


def explained(values, labels):
    """Share of the variance that the regions' means explain (Moore et al. 2008)."""
    means = np.asarray(superpixels.region_means(values, labels, int(labels.max()) + 1))
    return 1 - ((values - means[labels]) ** 2).sum() / ((values - values.mean((0, 1))) ** 2).sum()


@pytest.mark.parametrize("count", [50, 200])
def test_superpixels_are_as_good_as_skimages(photo, count):
    values = np.asarray(features.lab(photo))
    found = superpixels.slic(values, count)
    peer = segmentation.slic(photo, count, compactness=10, start_label=0)
    assert found.shape == photo.shape[:2]
    assert 0.7 * count < found.max() + 1 < 1.3 * count
    assert explained(values, found) > explained(values, peer) - 0.01
    regions = found.max() + 1
    np.testing.assert_array_equal(np.unique(found), np.arange(regions))
    assert measure.label(found + 1, connectivity=1).max() == regions  # each is in one piece


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_components_are_skimages(seed, kinds):
    labels = np.random.default_rng(seed).integers(0, kinds, (9, 13))
    found = np.asarray(superpixels.components(labels))
    expected = measure.label(labels + 1, connectivity=1)
    assert len(np.unique(found)) == expected.max()
    assert len(set(zip(found.ravel(), expected.ravel()))) == expected.max()


def test_regions_touch_by_sides_and_corners():
    labels = np.array([[0, 0, 1], [0, 2, 1], [3, 3, 3]])
    expected = np.array([[0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0]], bool)
    np.testing.assert_array_equal(superpixels.touching(labels, 4), expected)
    apart = np.array([[0, 1, 2]])
    assert not superpixels.touching(apart, 3)[0, 2]
    lines = np.array([[0, 1, 0], [1, 1, 0], [0, 0, 0]], bool)
    np.testing.assert_array_equal(superpixels.boundaries(labels)[0], [0, 1, 0])
    assert superpixels.boundaries(np.zeros((3, 3), int)).sum() == 0
    np.testing.assert_array_equal(superpixels.boundaries(lines.astype(int))[0], [1, 1, 0])


def test_superpixels_of_one_colour_and_of_one_pixel():
    flat = superpixels.slic(np.zeros((20, 30, 3), np.float32), 6)
    assert flat.max() + 1 == 6
    np.testing.assert_array_equal(superpixels.slic(np.ones((1, 1, 3), np.float32), 1), [[0]])
    every = superpixels.slic(np.random.default_rng(0).random((4, 5, 3), np.float32), 20)
    assert every.max() + 1 == 20
    with pytest.raises(UserError, match="from 1 to 20"):
        superpixels.slic(np.zeros((4, 5, 3), np.float32), 21)
    with pytest.raises(UserError, match=r"compactness=0.0 must be positive"):
        superpixels.slic(np.zeros((4, 5, 3), np.float32), 2, compactness=0.0)
