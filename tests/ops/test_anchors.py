"""Anchors equal torchvision's, mmdetection's and effdet's bit by bit (parity/detection_ops.npz)."""

from functools import partial

import numpy as np
import pytest
from parity.detection_ops import CELL, DEFAULT, EFFICIENTDET, PATH, YOLO, digest

from jaxvision.ops import anchors

GOLDEN = np.load(PATH)


def of_torchvision(name):
    sizes, ratios, image, maps = CELL[name]
    return np.concatenate(
        [
            anchors.grid_anchors(
                anchors.cell_anchors(s, r), size, [side // n for side, n in zip(image, size)]
            )
            for s, r, size in zip(sizes, ratios, maps)
        ]
    )


def default_boxes(options, image, maps):
    return anchors.default_boxes(**options, feature_sizes=maps, image_size=image)


MADE = {
    **{name: partial(of_torchvision, name) for name in CELL},
    **{name: partial(default_boxes, *case) for name, case in DEFAULT.items()},
    **{name: partial(anchors.yolo_anchors, *case) for name, case in YOLO.items()},
    **{
        f"efficientdet_{name}": partial(anchors.efficientdet_anchors, **options)
        for name, options in EFFICIENTDET.items()
    },
}


@pytest.mark.parametrize("name", MADE)
def test_equal_to_the_last_bit(name):
    found = MADE[name]()
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.shape, GOLDEN[f"anchors/{name}/shape"])
    np.testing.assert_array_equal(found[:: max(1, len(found) // 7)], GOLDEN[f"anchors/{name}/some"])
    np.testing.assert_array_equal(digest(found), GOLDEN[f"anchors/{name}/digest"])


def test_cell_anchors_by_hand():
    # 32 / √2 = 22.63 wide and 45.25 tall: halves are rounded.
    found = anchors.cell_anchors([32, 64], [2.0])
    np.testing.assert_array_equal(found, [[-11, -23, 11, 23], [-23, -45, 23, 45]])


def test_places_go_by_rows():
    found = anchors.grid_anchors(np.float32([[-1, -2, 1, 2], [0, 0, 1, 1]]), (2, 2), (10, 20))
    expected = [[-1, -2, 1, 2], [0, 0, 1, 1], [19, -2, 21, 2], [20, 0, 21, 1]]
    np.testing.assert_array_equal(found[:4], expected)
    np.testing.assert_array_equal(found[4:], np.add(expected, [0, 10, 0, 10]))


def test_points_by_hand():
    np.testing.assert_array_equal(anchors.points((1, 3), 8), [[4, 4], [12, 4], [20, 4]])
    found = anchors.points((2, 2), (4, 8), offset=0)
    np.testing.assert_array_equal(found, [[0, 0], [8, 0], [0, 4], [8, 4]])


def test_points_without_offset_are_the_middles_of_torchvisions_fcos():
    boxes = of_torchvision("fcos")
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    _, _, image, maps = CELL["fcos"]
    found = [anchors.points(size, image[0] // size[0], offset=0) for size in maps]
    np.testing.assert_array_equal(np.concatenate(found), middles)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratios": [[2]]}, "2 maps need as many lists of ratios; there are 1"),
        ({"ratios": [[2], [2]], "scales": [0.1, 0.2]}, "2 maps need as many scales, and one more"),
        ({"ratios": [[2], [2]], "steps": [8]}, "2 maps need as many steps; there are 1"),
    ],
)
def test_as_many_options_as_maps(options, message):
    with pytest.raises(ValueError, match=message):
        anchors.default_boxes(**options, feature_sizes=[(2, 2), (1, 1)], image_size=(32, 32))
