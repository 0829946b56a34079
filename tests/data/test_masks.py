"""Masks as crops: against whole masks, against pycocotools, against torchvision's pasting."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parity import paste as reference
from pycocotools import mask as tools

from jaxvision.data.geometry import Geometry
from jaxvision.data.masks import Crops, paste, segmentation_of, to_rle
from jaxvision.errors import UserError

SIZE = (23, 31)


def masks_of(seed, count=4, size=SIZE):
    """Blobs, some of which touch the border, one of all pixels and one of none."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    masks = []
    for _ in range(count):
        y, x = rng.uniform(0, size[0]), rng.uniform(0, size[1])
        radius, noise = rng.uniform(1, 12), rng.random(size)
        masks.append((np.hypot(rows - y, columns - x) < radius) & (noise < 0.8))
    return np.array([*masks, np.ones(size, bool), np.zeros(size, bool)])


def geometries(size=SIZE):
    height, width = size
    middle = Geometry((1.0, 0.0, -width / 2, 0.0, 1.0, -height / 2), size, size)
    turned = []
    for degrees, scale in ((30, 1.0), (-75, 2.3), (90, 0.6)):
        cos, sin = scale * np.cos(np.deg2rad(degrees)), scale * np.sin(np.deg2rad(degrees))
        turn = Geometry((cos, -sin, 20.0, sin, cos, 15.0), size, (30, 41))
        turned.append(middle.then(turn))
    return [
        Geometry.identity(size),
        Geometry.resize(size, (46, 62)),
        Geometry.resize(size, (17, 50)),
        Geometry.resize(size, (11, 9)),
        Geometry.crop(size, 3, 5, 12, 20),
        Geometry.crop(size, -4, 20, 30, 30),
        Geometry.crop(size, 40, 40, 5, 5),
        Geometry.pad(size, 5, 2, 40, 33),
        Geometry.flip(size),
        Geometry.flip(size, vertical=True),
        Geometry.flip(size).then(Geometry.resize(size, (33, 20))),
        Geometry.window(size, 4, 6, 10, 15, (25, 30)),
        Geometry((1.3, 0.0, -4.6, 0.0, 0.7, 2.2), size, (20, 37)),  # parts of pixels
        Geometry((-0.8, 0.0, 27.1, 0.0, 1.9, -7.4), size, (28, 24)),
        *turned,
        Geometry((1.0, 0.4, -3.0, -0.2, 1.1, 5.0), size, (26, 35)),  # shears
    ]


# -- whole masks ----------------------------------------------------------------------------------


def test_crops_are_whole_masks():
    masks = masks_of(0)
    crops = Crops.of_stack(masks)
    assert len(crops) == 6
    assert crops.size == SIZE
    np.testing.assert_array_equal(crops.stack(), masks)
    np.testing.assert_array_equal(crops.any(), masks.any((1, 2)))
    np.testing.assert_array_equal(crops.bits(), np.packbits(masks, axis=-1))
    kept = np.array([True, False, True, False, False, True])
    np.testing.assert_array_equal(crops.select(kept).stack(), masks[kept])
    assert sum(crop.size for crop in crops.crops[:4]) < masks[:4].size / 2
    none = Crops.of_stack(np.zeros((0, *SIZE), bool))
    assert none.stack().shape == (0, *SIZE)
    assert none.bits().shape == (0, 23, 4)
    assert none.any().shape == (0,)
    assert none.to_rle() == []
    assert len(none.move(Geometry.flip(SIZE))) == 0


@pytest.mark.parametrize("geometry", geometries(), ids=str)
def test_crops_move_as_whole_masks_do(geometry):
    for seed in range(3):
        masks = masks_of(seed)
        moved = Crops.of_stack(masks).move(geometry)
        whole = np.array([geometry.labels(mask, 0) for mask in masks])
        np.testing.assert_array_equal(moved.stack(), whole)
        assert moved.size == geometry.size
        # And once more from there, where crops are no longer tight.
        again = Geometry.resize(geometry.size, (19, 28))
        twice = np.array([again.labels(mask, 0) for mask in whole])
        np.testing.assert_array_equal(moved.move(again).stack(), twice)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 60), st.integers(1, 60), st.integers(1, 90), st.integers(1, 90), st.booleans()
)
def test_any_resize(height, width, rows, columns, mirrored):
    size = (height, width)
    masks = masks_of(height + width, 2, size)
    geometry = Geometry.resize(size, (rows, columns))
    if mirrored:
        geometry = Geometry.flip(size).then(geometry)
    whole = np.array([geometry.labels(mask, 0) for mask in masks])
    np.testing.assert_array_equal(Crops.of_stack(masks).move(geometry).stack(), whole)


# -- COCO's polygons and run lengths --------------------------------------------------------------


def test_run_lengths_are_those_of_pycocotools():
    masks = [*masks_of(1), np.tile([[True], [False]], (12, 31))[:23], np.eye(23, 31, dtype=bool)]
    masks += [np.zeros(SIZE, bool) for _ in range(2)]
    masks[-1][0, 0] = masks[-2][-1, -1] = True
    for mask in masks:
        crops = Crops.of_stack(mask[None])
        (ours,) = crops.to_rle()
        theirs = tools.encode(np.asfortranarray(mask))
        assert ours == {"size": [23, 31], "counts": theirs["counts"].decode()}
        # Not tight: the whole image is a crop, too.
        assert to_rle(mask, (0, 0), SIZE) == ours
        for form in (ours, theirs, tools_uncompressed(mask)):
            again = Crops.of_segmentations([segmentation_of(form)], SIZE, "a")
            np.testing.assert_array_equal(again.stack()[0], mask)


def tools_uncompressed(mask):
    """Run lengths as a list, by hand."""
    counts, inside, length = [], False, 0
    for pixel in mask.T.ravel().tolist():
        if pixel != inside:
            counts.append(length)
            inside, length = pixel, 0
        length += 1
    return {"size": list(mask.shape), "counts": [*counts, length]}


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 40), st.floats(0, 1))
def test_any_run_lengths(seed, height, width, share):
    mask = np.random.default_rng(seed).random((height, width)) < share
    theirs = tools.encode(np.asfortranarray(mask))
    assert Crops.of_stack(mask[None]).to_rle()[0]["counts"] == theirs["counts"].decode()
    crops = Crops.of_segmentations([segmentation_of(theirs)], (height, width), "a")
    np.testing.assert_array_equal(crops.stack()[0], mask)


def test_long_runs():
    """Of more than 2^15 pixels, whose compressed form has several digits and differences."""
    mask = np.zeros((3000, 400), bool)
    mask[:, 30:90] = mask[100:2000, 200:202] = True
    mask[5, 7] = mask[-1, -1] = True
    (ours,) = Crops.of_stack(mask[None]).to_rle()
    assert ours["counts"] == tools.encode(np.asfortranarray(mask))["counts"].decode()
    crops = Crops.of_segmentations([segmentation_of(ours)], mask.shape, "a")
    np.testing.assert_array_equal(crops.stack()[0], mask)


def test_polygons_are_drawn_as_pycocotools_draws_them():
    triangle, outside = [3, 2, 20.5, 4.2, 9, 18.7], [25, -5, 40.25, 10, 30, 29, 10, 40.5]
    small = [5, 5, 5.2, 5, 5.2, 5.2]
    given = [[triangle], [triangle, outside], [outside], [small], None, []]
    crops = Crops.of_segmentations([segmentation_of(one) for one in given], SIZE, "a")
    for polygons, mask in zip(given[:4], crops.stack()):
        theirs = tools.decode(tools.merge(tools.frPyObjects(polygons, *SIZE)))
        np.testing.assert_array_equal(mask, theirs)
    assert crops.any().tolist() == [True, True, True, False, False, False]
    checked = segmentation_of([triangle])
    np.testing.assert_array_equal(segmentation_of(checked)[0], triangle)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([[1, 2, 3, 4, 5, 6, 7]], "has a polygon of 7 numbers; expected x and y of 3 points"),
        ([[1, 2, 3, 4]], "has a polygon of 4 numbers"),
        ([[1, 2, 3, 4, 5, 6], []], "has a polygon of 0 numbers"),
        ([1, 2, 3, 4, 5, 6], r"has the segmentation \[1, 2, .*; expected polygons \[\[x, y"),
        ([[1, 2, 3, 4, 5, "6"]], r"has the polygon \[1, 2, 3, 4, 5, '6'\]; expected numbers"),
        ([[1, 2, 3, 4, 5, None]], "expected numbers"),
        ([[1, 2, 3, 4, 5, 10**400]], "expected numbers"),
        ([[1, 2, 3, float("nan"), 5, 6]], "with the coordinate nan"),
        ([[1, 2, 3, -5e9, 5, 6]], "with the coordinate -5e"),
        ("a", "has the segmentation 'a'"),
        ({"size": [2, 3]}, "has the segmentation"),
        ({"size": [2, "3"], "counts": [6]}, "has the segmentation"),
        ({"size": [0, 3], "counts": [0]}, "has the segmentation"),
        ({"size": [2, 3], "counts": [5]}, "run lengths of 5 pixels in all; expected 3x2"),
        ({"size": [2, 3], "counts": []}, "run lengths of 0 pixels"),
        ({"size": [2, 3], "counts": [5, -1, 2]}, "a run length of -1 pixels; its image has 3x2"),
        ({"size": [2, 3], "counts": [2**62, 2**62, 2**62, 2**62, 6]}, "a run length of 4611"),
        ({"size": [2, 3], "counts": [1.5, 4.5]}, "run lengths that are damaged"),
        ({"size": [2, 3], "counts": 6}, "run lengths that are damaged"),
        ({"size": [2, 3], "counts": ""}, "run lengths that are damaged"),
        ({"size": [2, 3], "counts": "é6"}, "run lengths that are damaged"),
        ({"size": [2, 3], "counts": "6"}, None),
        ({"size": [2, 3], "counts": "7"}, "a run length of 7 pixels"),
        ({"size": [2, 3], "counts": "21"}, "run lengths of 3 pixels in all"),
        ({"size": [2, 3], "counts": "P"}, "run lengths that are damaged"),  # ends amid a number
        ({"size": [2, 3], "counts": "PPPPPPPPPPPPPPPPPP0"}, "run lengths that are damaged"),
    ],
)
def test_wrong_segmentations(given, message):
    found = segmentation_of(given)
    if message is None:
        assert not isinstance(found, str)
    else:
        assert isinstance(found, str)
        with pytest.raises(AssertionError, match=message):
            raise AssertionError(found)


def test_run_lengths_of_another_image():
    with pytest.raises(UserError, match=r"a.jpg: object 1 has run lengths of 3x2 pixels, the"):
        Crops.of_segmentations([None, {"size": [2, 3], "counts": np.array([6])}], SIZE, "a.jpg")


# -- pasting --------------------------------------------------------------------------------------


def test_masks_are_pasted_as_torchvision_pastes_them():
    stored = np.load(reference.GOLDEN)
    for name, (cells, size) in reference.CASES.items():
        grids, boxes = reference.grids(name, cells), reference.boxes(size)
        crops = paste(grids, boxes, size)
        theirs = [
            {"size": list(size), "counts": bytes(counts).decode()}
            for counts in np.split(stored[f"{name}/text"], stored[f"{name}/ends"][:-1])
        ]
        assert len(theirs) == len(boxes)
        whole = np.array([tools.decode(one) for one in theirs], bool)
        apart = (crops.stack() != whole).mean()
        assert apart <= 1e-5, name
        assert crops.to_rle() == theirs or apart > 0


def test_what_is_pasted_outside_or_nowhere():
    boxes = np.float32([[-50, -50, -40, -40], [100, 3, 120, 9], [4, 4, 4, 4], [-9, -9, 60, 60]])
    crops = paste(np.ones((4, 28, 28)), boxes, SIZE)
    assert crops.any().tolist() == [False, False, True, True]
    assert crops.stack()[3].all()
    assert crops.stack()[2].sum() == 1
    assert not paste(np.full((4, 28, 28), 0.4), boxes, SIZE).any().any()
    assert paste(np.full((4, 28, 28), 0.4), boxes, SIZE, threshold=0.3).any().sum() == 2
    assert len(paste(np.zeros((0, 28, 28)), np.zeros((0, 4)), SIZE)) == 0


def test_boxes_far_larger_than_the_photograph_take_no_more_memory():
    (crop,) = paste(np.ones((1, 28, 28)), np.array([[-1e5, -1e5, 1e5, 1e5]]), SIZE).crops
    assert crop.shape == SIZE
    assert crop.all()
