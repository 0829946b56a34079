"""Selective search: equal to the package `selectivesearch`, and to the paper's formulas by hand."""

import numpy as np
import pytest
from parity.selective_search import BUNDLED, FILES, GOLDEN, OPTIONS, photograph
from skimage.segmentation import felzenszwalb

from jaxvision.classical import selective_search as search
from jaxvision.classical.selective_search import Strategy, selective_search
from jaxvision.errors import UserError


def compare(name, kind, image):
    golden = np.load(GOLDEN)
    segments, rect, size, count, labels = (
        golden[f"{name} {kind} {key}"] for key in ("segments", "rect", "size", "count", "labels")
    )
    found = search.regions(image, **OPTIONS[kind])
    np.testing.assert_array_equal(found.segments, segments)
    np.testing.assert_array_equal(found.sizes, size)
    # Its widths and heights end at the last pixel, ours behind it.
    np.testing.assert_array_equal(found.boxes[:, :2], rect[:, :2])
    np.testing.assert_array_equal(found.boxes[:, 2:] - found.boxes[:, :2] - 1, rect[:, 2:])
    assert [len(each) for each in found.labels()] == count.tolist()
    np.testing.assert_array_equal(np.concatenate(found.labels()), labels)


@pytest.mark.parametrize("kind", OPTIONS)
@pytest.mark.parametrize("name", BUNDLED)
def test_regions_are_those_of_the_package(name, kind):
    compare(name, kind, photograph(name))


@pytest.mark.parametrize("kind", OPTIONS)
@pytest.mark.parametrize("name", FILES)
def test_regions_of_other_photographs(name, kind, shared_data):
    compare(name, kind, photograph(name, shared_data))


def quarters():
    """Four flat squares: the upper two have two channels in common, and the lower two."""
    image = np.zeros((32, 32, 3), np.uint8)
    image[:16, :16], image[:16, 16:] = (200, 40, 40), (200, 40, 90)
    image[16:, :16], image[16:, 16:] = (30, 80, 220), (30, 120, 220)
    return image


def test_alike_neighbours_are_merged_first():
    (found,) = search.hierarchies(quarters(), [Strategy("rgb", 5, "C")], sigma=0)
    assert found.sizes.tolist() == [256] * 4 + [512, 512, 1024]
    assert sorted(found.boxes[4:6].tolist()) == [[0, 0, 32, 16], [0, 16, 32, 32]]
    assert found.boxes[6].tolist() == [0, 0, 32, 32]
    assert sorted(map(len, found.labels())) == [1, 1, 1, 1, 2, 2, 4]


def hand_similarity(regions, masks, colour_bins, name):
    """Section 4.1 of the paper for two regions, of masks and the whole image's pixels."""
    a, b = masks
    pixels = a.size
    if name == "S":
        return 1 - (a.sum() + b.sum()) / pixels
    if name == "F":
        rows, columns = np.nonzero(a | b)
        box = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        return 1 - (box - a.sum() - b.sum()) / pixels
    histograms = [
        np.concatenate([np.bincount(c[m], minlength=25) for c in colour_bins]) for m in (a, b)
    ]
    one, other = (h / h.sum() for h in histograms)
    return np.minimum(one, other).sum()


@pytest.mark.parametrize("similarity", ["C", "S", "F"])
def test_the_first_merger_is_of_the_most_similar_by_hand(similarity):
    image = photograph("astronaut")[:64, :96]
    strategy = Strategy("rgb", 60, similarity)
    (found,) = search.hierarchies(image, [strategy])
    segments = felzenszwalb(image / 255, scale=60, sigma=0.8, min_size=60)
    np.testing.assert_array_equal(found.segments, segments)
    bins = np.minimum((np.moveaxis(image, -1, 0) / 255 * 25).astype(int), 24)
    neighbours = {
        tuple(sorted((int(a), int(b))))
        for one, other in ((segments[1:], segments[:-1]), (segments[:, 1:], segments[:, :-1]))
        for a, b in zip(one.ravel(), other.ravel())
        if a != b
    }
    values = {
        pair: hand_similarity(segments, [segments == label for label in pair], bins, similarity)
        for pair in neighbours
    }
    first = tuple(sorted(found.labels()[len(found.first)]))
    assert values[first] == pytest.approx(max(values.values()), abs=1e-6)


def test_textures_are_gaussian_derivatives_in_eight_orientations():
    ramp = np.tile(np.arange(40, dtype=np.float32) / 40, (30, 1))[..., None]
    bins = search._texture_bins(ramp)[:, 8:-8, 8:-8] - search._TEXTURES
    # The image rises to the right only: at 0 degrees fully, at 45 and -45 (that is 135, opposite)
    # by 1/sqrt(2) of it, and at 90 not at all.
    assert np.unique(bins[0]).tolist() == [9]
    assert np.unique(bins[1]).tolist() == [10 + 7]
    assert set(np.unique(bins[2]).tolist()) <= {20, 60}
    assert np.unique(bins[3]).tolist() == [70 + 7]


def test_every_texture_histogram_counts_every_pixel():
    image = photograph("coffee")
    pixels = search.in_colour(image, "lab")
    bins = np.concatenate([search._colour_bins(pixels), search._texture_bins(pixels)])
    segments = felzenszwalb(pixels, scale=100, channel_axis=-1)
    leaves = search._with_opposites(search._leaves(segments, bins, search._touching), 3)
    each = leaves.histograms[:, search._TEXTURES :].reshape(-1, 24, 10).sum(-1)
    np.testing.assert_allclose(each, 1, atol=1e-9)
    assert (leaves.histograms >= -1e-12).all()


@pytest.mark.parametrize("colour", search.COLOURS)
def test_colour_spaces_are_from_zero_to_one(colour):
    rng = np.random.default_rng(0)
    image = np.concatenate([rng.integers(0, 256, (8, 8, 3)), np.zeros((1, 8, 3))]).astype(np.uint8)
    image[0, 0], image[0, 1] = 255, (255, 0, 0)
    found = search.in_colour(image, colour)
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found.max() <= 1 + 1e-6
    red = {
        "hsv": [0, 1, 1], "hue": [0], "rgi": [1, 0, 1 / 3], "intensity": [1 / 3],
        "rgb": [1, 0, 0], "normalized_rgb": [1, 0, 0], "c": [1, 1, 1 / 3],
    }  # fmt: skip
    if colour in red:
        np.testing.assert_allclose(found[0, 1], red[colour], atol=1e-6)
    else:  # CIELAB of sRGB's red: 53.24, 80.09, 67.20
        np.testing.assert_allclose(found[0, 1], [0.5324, 208.09 / 255, 195.20 / 255], atol=1e-3)


def test_boxes_are_unique_ranked_and_of_their_sides():
    image = photograph("chelsea")
    found = selective_search(image, seed=3)
    assert found.dtype == np.float32
    assert len(np.unique(found, axis=0)) == len(found) > 30
    height, width = image.shape[:2]
    assert (found[:, :2] >= 0).all()
    assert (found[:, 2:] <= [width, height]).all()
    np.testing.assert_array_equal(found, selective_search(image, seed=3))
    other = selective_search(image, seed=4)
    assert not np.array_equal(found, other)
    np.testing.assert_array_equal(np.unique(found, axis=0), np.unique(other, axis=0))
    # The whole image is the first of all eight hierarchies.
    place = np.flatnonzero((found == [0, 0, width, height]).all(1))
    assert place[0] < len(found) / 4
    wide = selective_search(image, seed=3, min_side=20)
    sides = (found[:, 2:] - found[:, :2]).min(1)
    np.testing.assert_array_equal(wide, found[sides >= 20])
    np.testing.assert_array_equal(selective_search(image, seed=3, limit=7), found[:7])


def test_one_strategy_of_several_is_as_alone():
    image = photograph("rocket")
    together = search.hierarchies(image, search.FAST)
    for at in (0, 5):
        (alone,) = search.hierarchies(image, search.FAST[at : at + 1])
        np.testing.assert_array_equal(together[at].boxes, alone.boxes)
        np.testing.assert_array_equal(together[at].children, alone.children)


def test_the_modes_are_the_papers():
    assert {(s.colour, s.scale, s.similarity) for s in search.FAST} == {
        (colour, k, letters)
        for colour in ("hsv", "lab")
        for k in (50, 100)
        for letters in ("CTSF", "TSF")
    }
    assert len(search.QUALITY) == 80


def test_an_image_of_one_colour_is_one_box():
    grey = np.full((20, 30, 3), 77, np.uint8)
    for mode in ("fast", "single"):
        np.testing.assert_array_equal(selective_search(grey, mode), [[0, 0, 30, 20]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "fats"}, "Did you mean 'fast'"),
        ({"min_side": -1}, "min_side=-1 must be at least 0"),
        ({"limit": 0}, "limit=0 at least 1"),
        ({"strategies": [Strategy("hvs", 50, "C")]}, "Did you mean 'hsv'"),
        ({"strategies": [Strategy("hsv", 50, "CX")]}, "similarity 'X'"),
        ({"strategies": [Strategy("hsv", 0, "C")]}, "must be positive, got 0"),
    ],
)
def test_errors(options, message):
    with pytest.raises(UserError, match=message):
        selective_search(quarters(), **options)


def test_only_colour_images_are_searched():
    with pytest.raises(UserError, match=r"takes a uint8 image \[h, w, 3\], not float64 \[8, 8\]"):
        search._check(np.zeros((8, 8)))
    with pytest.raises(UserError, match="scale=0 must be positive"):
        search.regions(quarters(), scale=0)
