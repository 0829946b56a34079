"""Geometries against what they do to marked images, and the way back to the photograph."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvision.data.geometry import Geometry
from jaxvision.data.resizing import resize_image, resize_mask
from jaxvision.errors import UserError

SOURCE = (24, 30)
TURN = Geometry((0.8, -0.6, 12.0, 0.6, 0.8, -2.0), SOURCE, (28, 32))


def noise(height=24, width=30, channels=3):
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


@st.composite
def geometries(draw, source=SOURCE):
    """Up to three crops, paddings, flips and resizings, one after another."""
    whole = Geometry.identity(source)
    for _ in range(draw(st.integers(1, 3))):
        height, width = whole.size
        match draw(st.sampled_from(["crop", "pad", "resize", "flip"])):
            case "crop":
                top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
                step = Geometry.crop(
                    whole.size, top, left,
                    draw(st.integers(1, height - top)), draw(st.integers(1, width - left)),
                )  # fmt: skip
            case "pad":
                top, left = draw(st.integers(0, 9)), draw(st.integers(0, 9))
                step = Geometry.pad(whole.size, top, left, height + top + 2, width + left + 5)
            case "resize":
                step = Geometry.resize(
                    whole.size, (draw(st.integers(1, 60)), draw(st.integers(1, 60)))
                )
            case _:
                step = Geometry.flip(whole.size, vertical=draw(st.booleans()))
        whole = whole.then(step)
    return whole


def test_crops_padding_flips_and_resizing_are_exact():
    image = noise()
    cut = Geometry.crop(SOURCE, 3, 5, 8, 9)
    np.testing.assert_array_equal(cut.image(image), image[3:11, 5:14])
    padded = Geometry.pad(SOURCE, 2, 1, 30, 33).image(image, fill=9)
    expected = np.pad(image, ((2, 4), (1, 2), (0, 0)), constant_values=9)
    np.testing.assert_array_equal(padded, expected)
    for vertical in (False, True):
        flipped = Geometry.flip(SOURCE, vertical=vertical).image(image)
        np.testing.assert_array_equal(flipped, np.flip(image, 0 if vertical else 1))
    for options in ({"antialias": True}, {"antialias": False, "interpolation": "bicubic"}):
        resized = Geometry.resize(SOURCE, (17, 40)).image(image, **options)
        np.testing.assert_array_equal(resized, resize_image(image, (17, 40), **options))
        both = cut.then(Geometry.resize(cut.size, (17, 40))).image(image, **options)
        window = resize_image(image[3:11, 5:14], (17, 40), **options)
        np.testing.assert_array_equal(both, window)
    beyond = Geometry.crop(SOURCE, -2, 25, 10, 12)
    expected = np.pad(image[:8, 25:], ((2, 0), (0, 7), (0, 0)))
    np.testing.assert_array_equal(beyond.image(image), expected)
    outside = Geometry.crop(SOURCE, 50, 0, 4, 6)
    assert (outside.image(image, fill=7) == 7).all()
    assert (outside.labels(image[..., 0]) == 255).all()


def test_any_other_map_samples_the_source():
    image = cv2.GaussianBlur(noise(), (0, 0), 2)
    turned = TURN.image(image, fill=3)
    assert turned.shape == (28, 32, 3)
    for row, column in ((10, 12), (15, 20), (20, 10)):
        ((x, y),) = TURN.inverse_points(np.float32([[column + 0.5, row + 0.5]])) - 0.5
        expected = cv2.getRectSubPix(image.astype(np.float32), (1, 1), (float(x), float(y)))
        np.testing.assert_allclose(turned[row, column], expected[0, 0], atol=2.5)
    np.testing.assert_array_equal(turned[0, -1], [3, 3, 3])
    with pytest.raises(UserError, match="'bilinaer'"):
        TURN.image(image, "bilinaer")


@settings(max_examples=100, deadline=None)
@given(geometries(), st.integers(0, 23), st.integers(0, 29))
def test_points_and_boxes_follow_marked_pixels(geometry, row, column):
    mark = np.zeros(SOURCE, np.uint8)
    mark[row, column] = 1
    found = np.argwhere(geometry.labels(mark, fill=0))
    box = np.float32([[column, row, column + 1, row + 1]])
    (moved,) = geometry.boxes(box)
    height, width = geometry.size
    assert (moved >= 0).all()
    assert (moved <= [width, height, width, height]).all()
    for y, x in found:  # the centre of each marked pixel came out of the box
        assert moved[0] - 0.01 <= x + 0.5 <= moved[2] + 0.01
        assert moved[1] - 0.01 <= y + 0.5 <= moved[3] + 0.01
    (point,) = geometry.points(np.float32([[column + 0.5, row + 0.5]]))
    inside = (point > 0).all() and (point < [width, height]).all()
    if inside and min(moved[2:] - moved[:2]) >= 1:
        assert len(found)
    (back,) = geometry.inverse_points(point[None])
    np.testing.assert_allclose(back, [column + 0.5, row + 0.5], atol=1e-2)
    unclipped = geometry.points(box.reshape(2, 2))
    if (unclipped >= 0).all() and (unclipped <= [width, height]).all():
        np.testing.assert_allclose(geometry.inverse_boxes(moved[None]), box, atol=1e-2)


@settings(max_examples=100, deadline=None)
@given(geometries())
def test_composed_labels_are_those_of_the_pixel_under_each_centre(geometry):
    labels = np.random.default_rng(1).integers(0, 200, SOURCE, np.uint8)
    moved = geometry.labels(labels)
    rows, columns = np.mgrid[: geometry.size[0], : geometry.size[1]] + 0.5
    places = np.stack([columns, rows], -1).reshape(-1, 2).astype(np.float32)
    inverse = np.linalg.inv(geometry.matrix)
    x, y = (places @ inverse[:2, :2].T + inverse[:2, 2]).T
    for sign in (-1e-3, 1e-3):  # a centre on a border may fall to either side
        column, row = np.floor(x + sign).astype(int), np.floor(y + sign).astype(int)
        inside = (column >= 0) & (column < 30) & (row >= 0) & (row < 24)
        expected = np.where(inside, labels[row.clip(0, 23), column.clip(0, 29)], 255)
        agree = expected.reshape(moved.shape) == moved
        firm = (np.abs(x - x.round()) > 2e-3) & (np.abs(y - y.round()) > 2e-3)
        assert agree.ravel()[firm].all()


@settings(max_examples=60, deadline=None)
@given(geometries(), geometries(source=SOURCE))
def test_it_is_a_value(geometry, other):
    assert geometry.matrix.dtype == np.float64
    assert geometry.as_array().dtype == np.float32
    again = Geometry.from_array(geometry.as_array(), geometry.source, geometry.size)
    np.testing.assert_allclose(again.matrix, geometry.matrix, rtol=1e-6, atol=1e-6)
    assert hash(geometry) == hash(Geometry(geometry.affine, geometry.source, geometry.size))
    np.testing.assert_allclose(geometry.then(geometry.inverse).matrix, np.eye(3), atol=1e-6)
    assert geometry.mirrors == (np.linalg.det(geometry.matrix) < 0)
    if geometry.size == other.source:
        np.testing.assert_allclose(
            geometry.then(other).matrix, other.matrix @ geometry.matrix, atol=1e-9
        )


def test_sizes_must_follow_each_other():
    with pytest.raises(UserError, match="cannot follow"):
        Geometry.identity((3, 4)).then(Geometry.identity((4, 3)))
    with pytest.raises(UserError, match="no way back"):
        Geometry((0.0,) * 6, (3, 4), (3, 4)).inverse.points(np.zeros((1, 2), np.float32))


# -- back to the photograph ---------------------------------------------------------------------


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("through_float32", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_padded_prediction_comes_back_to_its_pixels(center, through_float32, stride):
    """As the shipped VOC and ADE20K configurations evaluate: resized, then padded."""
    rows, columns = np.mgrid[:20, :28]
    labels = ((rows // 5 + columns // 7) % 3).astype(np.uint8)
    geometry = Geometry.resize((20, 28), (40, 56))
    top, left = (12, 4) if center else (0, 0)
    geometry = geometry.then(Geometry.pad((40, 56), top, left, 64, 64))
    if through_float32:
        geometry = Geometry.from_array(geometry.as_array(), (20, 28), (64, 64))
    seen = geometry.labels(labels, fill=9)  # a perfect network, which says 9 of padding
    coarse = resize_mask(seen, (64 // stride, 64 // stride))
    back = geometry.restore_labels(coarse)
    assert back.shape == (20, 28)
    assert (back == labels).mean() > 0.96
    assert not (back == 9).any()


def test_pixels_outside_of_the_crop_are_filled():
    labels = np.arange(24 * 30, dtype=np.int32).reshape(24, 30)
    geometry = Geometry.crop(SOURCE, 4, 6, 10, 12)
    back = geometry.restore_labels(geometry.labels(labels), fill=-1)
    seen = np.zeros(SOURCE, bool)
    seen[4:14, 6:18] = True
    np.testing.assert_array_equal(back[seen], labels[seen])
    assert (back[~seen] == -1).all()
    mirrored = Geometry.flip(SOURCE)
    np.testing.assert_array_equal(mirrored.restore_labels(mirrored.labels(labels)), labels)


@settings(max_examples=80, deadline=None)
@given(geometries())
def test_enlarged_maps_come_back_whole(geometry):
    if min(geometry.affine[0] ** 2, geometry.affine[4] ** 2) < 1:
        return  # some pixels were not sampled
    labels = np.random.default_rng(1).integers(0, 200, SOURCE, np.uint8)
    back = geometry.restore_labels(geometry.labels(labels), fill=255)
    assert ((back == labels) | (back == 255)).mean() > 0.95


def test_volumes_have_no_geometry_but_the_identity():
    geometry = Geometry.identity((4, 6, 8))
    volume = np.arange(4 * 6 * 8, dtype=np.uint8).reshape(4, 6, 8)
    assert geometry.image(volume[..., None]).shape == (4, 6, 8, 1)
    np.testing.assert_array_equal(geometry.labels(volume), volume)
    np.testing.assert_array_equal(geometry.restore_labels(volume), volume)
    half = volume[::2, ::2, ::2]
    np.testing.assert_array_equal(geometry.restore_labels(half)[::2, ::2, ::2], half)
    np.testing.assert_array_equal(geometry.as_array(), np.eye(3))
