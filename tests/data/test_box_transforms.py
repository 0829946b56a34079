"""Host transforms of detectors: where images and boxes go, by hand and as torchvision says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvision.data import transforms
from jaxvision.data.annotations import KINDS
from jaxvision.data.geometry import Geometry
from jaxvision.errors import UserError

KIND = (KINDS["instances"],)
BOXES = np.float32([[4, 6, 30, 40], [50, 10, 90, 55], [20, 30, 64, 58], [0, 0, 8, 6]])


def record_of(height=60, width=100, boxes=BOXES, channels=3, **more):
    return {
        "image": np.full((height, width, channels), 7, np.uint8),
        "boxes": np.float32(boxes).reshape(-1, 4),
        "box_label": np.arange(len(boxes)),
        "box_crowd": np.zeros(len(boxes), bool),
        **more,
    }


def apply(name, record, rng=None, **parameters):
    steps = transforms.compose([{"name": name, **parameters}], KIND)
    return steps(record, rng or np.random.default_rng(0))


class Numbers:
    """Multiples of 1/64, drawn as torchvision was made to draw them for the values below."""

    def __init__(self, seed):
        self._rng = np.random.default_rng(seed)

    def _next(self):
        return int(self._rng.integers(0, 64))

    def integers(self, low, high):
        return self._next() % high

    def random(self, count=None):
        return (
            self._next() / 64
            if count is None
            else np.array([self._next() / 64 for _ in range(count)])
        )


# -- one shape ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "parameters", "part"),
    [
        ((60, 100), {}, (0, 25, 100, 60)),  # bigger by 1.28, to 77 of 128 rows: 25 above, 26 below
        ((60, 100), {"center": False}, (0, 0, 100, 60)),
        ((200, 100), {}, (32, 0, 64, 128)),
        ((60, 100), {"enlarge": False}, (14, 34, 100, 60)),
    ],
)
def test_letterbox(size, parameters, part):
    left, top = part[:2]
    out = apply("letterbox", record_of(*size), size=128, **parameters)
    assert out["image"].shape == (128, 128, 3)
    factor = 1.0 if "enlarge" in parameters else 128 / max(size)
    height, width = round(size[0] * factor), round(size[1] * factor)
    inside = np.zeros((128, 128), bool)
    inside[top : top + height, left : left + width] = True
    np.testing.assert_array_equal(out["image"][..., 0], np.where(inside, 7, 114))
    scale = np.array([width / size[1], height / size[0]] * 2)
    expected = BOXES * scale + [left, top, left, top]
    np.testing.assert_allclose(out["boxes"], expected, rtol=1e-5)
    back = out["geometry"].inverse_boxes(out["boxes"])
    np.testing.assert_allclose(back, BOXES, atol=1e-4)


def test_letterbox_of_an_oblong():
    out = apply("letterbox", record_of(), size=[32, 200], fill=0)
    assert out["image"].shape == (32, 200, 3)  # 32 x 53, with 73 columns before it
    assert (out["image"][..., 0] == 7).sum() == 32 * 53
    np.testing.assert_allclose(
        out["boxes"][0], [73 + 4 * 0.53, 6 * 32 / 60, 73 + 15.9, 40 * 32 / 60], rtol=1e-5
    )


@pytest.mark.parametrize(
    ("size", "part", "whole"),
    [
        # As torchvision: min(800 / 427, 1333 / 640), and sides that are rounded down.
        ((427, 640), (800, 1199), (1344, 1344)),
        ((640, 427), (1199, 800), (1344, 1344)),
        ((100, 400), (333, 1333), (1344, 1344)),
        ((1600, 1600), (800, 800), (1344, 1344)),
    ],
)
def test_resize_shortest(size, part, whole):
    out = apply("resize_shortest", record_of(*size), fill=9)
    assert out["image"].shape == (*whole, 3)
    inside = (out["image"][..., 0] == 7).nonzero()
    assert (inside[0].max() + 1, inside[1].max() + 1) == part
    assert (out["image"][: part[0], : part[1]] == 7).all()
    scale = np.array([part[1] / size[1], part[0] / size[0]] * 2)
    np.testing.assert_allclose(out["boxes"], np.clip(BOXES, 0, size[1]) * scale, rtol=1e-5)


@pytest.mark.parametrize(
    ("size", "shape"),
    [((480, 640), (800, 1088)), ((640, 427), (1216, 800)), ((100, 400), (352, 1344))],
)
def test_resize_shortest_to_multiples_pads_as_torchvision(size, shape):
    # 480x640 becomes 800x1066, 640x427 1199x800, 100x400 333x1333.
    out = apply("resize_shortest", record_of(*size), multiple=32)
    assert out["image"].shape[:2] == shape
    with pytest.raises(UserError, match="not both"):
        apply("resize_shortest", record_of(*size), multiple=32, shape=64)


def test_resize_shortest_into_a_shape_and_of_several_sizes():
    wide = {"shape": [160, 256], "size": 150, "longest": 250}
    out = apply("resize_shortest", record_of(60, 100), **wide)
    assert out["image"].shape == (160, 256, 3)
    assert out["geometry"].affine[0] == 250 / 100
    tall = apply("resize_shortest", record_of(100, 60), **wide)  # is made smaller until it fits
    assert tall["image"].shape == (160, 256, 3)
    assert tall["geometry"].affine[4] == 160 / 100
    several = [{"name": "resize_shortest", "size": [30, 40, 50], "longest": 90}]
    assert transforms.compose(several).random
    assert not transforms.compose([{"name": "resize_shortest"}]).random
    sizes = {"size": [30, 40, 50], "longest": 90}
    drawn = [
        apply("resize_shortest", record_of(), np.random.default_rng(i), **sizes) for i in range(20)
    ]
    scales = {one["geometry"].affine[4] for one in drawn}
    assert scales == {30 / 60, 40 / 60, 50 / 60}
    with pytest.raises(UserError, match="Host transforms are for images, this is a volume"):
        apply("letterbox", {"image": np.zeros((2, 3, 4, 1), np.uint8)}, size=8)


# -- SSD's ----------------------------------------------------------------------------------------

# left, top, width, height and the boxes that stay, of torchvision 0.28's RandomIoUCrop.
CROPS = {
    0: ((57, 17, 31, 37), [1]),
    1: ((32, 0, 65, 49), [1, 2]),
    3: ((8, 0, 85, 54), [0, 1, 2]),
    4: ((49, 3, 42, 46), [1]),
    7: ((2, 3, 32, 36), [0]),
    9: ((15, 32, 37, 23), [2]),
    11: ((30, 5, 38, 51), [2]),
    13: ((8, 0, 90, 52), [0, 1, 2]),
    16: None,
    26: None,
    35: None,
}
MOVED = {  # what its boxes then are
    1: [[18, 10, 58, 49], [0, 30, 32, 49]],
    3: [[0, 6, 22, 40], [42, 10, 82, 54], [12, 30, 56, 54]],
    9: [[5, 0, 37, 23]],
}
# left, top, width, height of its RandomZoomOut.
ZOOMS = {0: None, 1: (112, 84, 250, 150), 2: None, 6: (81, 31, 259, 155), 11: (29, 10, 137, 82)}


@pytest.mark.parametrize("seed", CROPS)
def test_ssd_crop_is_torchvisions(seed):
    out = apply("ssd_crop", record_of(), Numbers(seed))
    if CROPS[seed] is None:
        assert out["image"].shape == (60, 100, 3)
        np.testing.assert_array_equal(out["boxes"], BOXES)
        return
    (left, top, width, height), kept = CROPS[seed]
    assert out["geometry"] == Geometry.crop((60, 100), top, left, height, width)
    assert out["box_label"].tolist() == kept
    if seed in MOVED:
        np.testing.assert_array_equal(out["boxes"], MOVED[seed])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.3, 0.7]))
def test_ssd_crop_keeps_its_rule(seed, least):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, [80, 40], (5, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(4, 20, (5, 2))], 1).astype(np.float32)
    crowd = np.arange(5) == 4
    record = record_of(boxes=boxes, box_crowd=crowd)
    out = apply("ssd_crop", record, np.random.default_rng(seed), overlaps=[least])
    geometry = out["geometry"]
    assert (out["boxes"][:, 2:] > out["boxes"][:, :2]).all()
    if geometry == Geometry.identity((60, 100)):
        return  # none was found
    height, width = geometry.size
    assert 0.5 <= width / height <= 2
    centres = geometry.points((boxes[:, :2] + boxes[:, 2:]) / 2)
    inside = ((centres > 0) & (centres < [width, height])).all(1)
    moved = geometry.boxes(boxes)
    met = (moved[:, 2:] > moved[:, :2]).all(1)
    np.testing.assert_array_equal(out["box_label"], np.flatnonzero(np.where(crowd, met, inside)))
    np.testing.assert_array_equal(out["boxes"], moved[out["box_label"]])
    shared = (moved[:, 2:] - moved[:, :2]).prod(1)
    overlap = shared / ((boxes[:, 2:] - boxes[:, :2]).prod(1) + height * width - shared)
    assert overlap[inside & ~crowd].max() >= least - 1e-6


def test_ssd_crop_without_objects_or_a_window():
    for record in (record_of(boxes=[]), record_of(box_crowd=np.ones(4, bool))):
        out = apply("ssd_crop", record, np.random.default_rng(0), overlaps=[0.0])
        assert out["image"].shape == (60, 100, 3)
    small = record_of(boxes=[[3, 3, 4, 4]])  # which no window overlaps by half
    assert apply("ssd_crop", small, overlaps=[0.5], tries=2)["image"].shape == (60, 100, 3)
    assert apply("ssd_crop", {"image": np.zeros((60, 100, 3), np.uint8)})["image"].shape[0] == 60


@pytest.mark.parametrize("seed", ZOOMS)
def test_ssd_expand_is_torchvisions(seed):
    out = apply("ssd_expand", record_of(), Numbers(seed))
    if ZOOMS[seed] is None:
        assert out["geometry"] == Geometry.identity((60, 100))
        return
    left, top, width, height = ZOOMS[seed]
    assert out["image"].shape == (height, width, 3)
    np.testing.assert_array_equal(out["boxes"], BOXES + np.float32([left, top, left, top]))
    assert (out["image"][top : top + 60, left : left + 100] == 7).all()
    assert out["image"][0, 0].tolist() == [123, 117, 104]
    grey = apply("ssd_expand", record_of(channels=1), Numbers(seed))
    assert grey["image"][0, 0].tolist() == [115]
    white = apply("ssd_expand", record_of(channels=1), Numbers(seed), fill=255)
    assert white["image"][0, 0].tolist() == [255]


def test_ssds_chain_to_one_shape():
    steps = [{"name": "ssd_expand"}, {"name": "ssd_crop"}, {"name": "resize", "size": 50}]
    pipeline = transforms.compose(steps, KIND)
    assert pipeline.random
    for seed in range(8):
        record = record_of(box_area=np.float32([100] * 4))
        out = pipeline(record, np.random.default_rng(seed))
        assert out["image"].shape == (50, 50, 3)
        scale = abs(out["geometry"].determinant)
        np.testing.assert_allclose(out["box_area"], 100 * scale, rtol=1e-5)
        expected = out["geometry"].boxes(BOXES[out["box_label"]])
        np.testing.assert_allclose(out["boxes"], expected, atol=1e-3)
