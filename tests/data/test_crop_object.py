"""The host transform of single objects: where image and key points go, and which object stays."""

import numpy as np
import pytest

from jaxvision.data import transforms
from jaxvision.data.annotations import KINDS
from jaxvision.data.geometry import Geometry
from jaxvision.errors import UserError

KIND = (KINDS["instances"],)
BOXES = np.float32([[4, 6, 24, 46], [50, 10, 90, 50], [0, 0, 99, 59]])
POINTS = np.float32([
    [[10, 10, 1], [20, 40, 2]],
    [[55, 15, 1], [85, 45, 0]],
    [[30, 30, 0], [31, 31, 0]],
])  # fmt: skip


def record_of(**more):
    return {
        "image": np.zeros((60, 100, 3), np.uint8),
        "boxes": BOXES,
        "box_label": np.arange(3),
        "box_crowd": np.array([False, False, False]),
        "keypoints": POINTS,
        **more,
    }


def apply(record, seed=0, **parameters):
    steps = transforms.compose([{"name": "crop_object", "size": 64, **parameters}], KIND)
    return steps(record, np.random.default_rng(seed))


def test_the_largest_object_with_a_label_fills_the_square():
    out = apply(record_of(), scale=1.6)
    # The third is larger, but none of its points is labelled: of the second 64 pixels are seen.
    assert out["image"].shape == (64, 64, 3)
    np.testing.assert_allclose(out["boxes"], [[12, 12, 52, 52]], atol=1e-4)
    np.testing.assert_allclose(out["keypoints"], [[[17, 17, 1], [47, 47, 0]]], atol=1e-4)
    assert out["box_label"].tolist() == [1]
    np.testing.assert_allclose(out["geometry"].inverse_boxes(out["boxes"]), BOXES[1:2], atol=1e-3)
    larger = apply(record_of(), scale=0.8)
    np.testing.assert_allclose(larger["keypoints"][0, 0], [2, 2, 1], atol=1e-4)


def test_whole_pixels_are_cut_out_as_they_are():
    image = np.random.default_rng(0).integers(0, 256, (60, 100, 3), np.uint8)
    out = apply(record_of(image=image), scale=1.6)
    padded = np.pad(image, ((2, 2), (0, 2), (0, 0)))
    np.testing.assert_array_equal(out["image"], padded[:, 38:102])


@pytest.mark.parametrize(
    ("more", "label"),
    [
        ({"box_crowd": np.array([False, True, False])}, 0),
        ({"keypoints": None}, 2),
        ({"keypoints": POINTS * [1, 1, 0] + [0, 0, 1]}, 2),
    ],
)
def test_which_objects_may_be_taken(more, label):
    record = {k: v for k, v in record_of(**more).items() if v is not None}
    if "keypoints" in record:
        record["keypoints"] = record["keypoints"].astype(np.float32)
    assert apply(record)["box_label"].tolist() == [label]


def test_any_object_may_be_drawn():
    found = {int(apply(record_of(), seed, choice="random")["box_label"][0]) for seed in range(12)}
    assert found == {0, 1}


@pytest.mark.parametrize("record", [
    {"image": np.zeros((60, 100, 3), np.uint8)},
    record_of(box_crowd=np.ones(3, bool)),
], ids=["no boxes", "crowds"])  # fmt: skip
def test_an_image_without_an_object_is_taken_whole(record):
    out = apply(record)
    corners = np.float32([[0, 0], [100, 60]])
    np.testing.assert_allclose(out["geometry"].points(corners), [[0, 12.8], [64, 51.2]], atol=1e-4)
    assert len(out.get("boxes", [])) == len(record.get("boxes", []))


def test_marks_and_key_points_move_alike():
    """Bright spots at the key points are found where these have gone, turned and shifted."""
    spots = np.float32([[60.5, 20.5, 1], [80.5, 40.5, 1], [70.5, 30.5, 1]])
    image = np.zeros((60, 100, 1), np.uint8)
    jitter = {"scale_range": (0.7, 1.4), "rotation": 90.0, "shift": 0.2, "scale": 1.5}
    turns = []
    for seed in range(8):
        for x, y, _ in spots:
            image[:] = 0
            image[int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2] = 255
            record = record_of(
                image=image, boxes=BOXES[1:2], box_label=np.zeros(1, int),
                box_crowd=np.zeros(1, bool), keypoints=np.float32([[[x, y, 1]]]),
            )  # fmt: skip
            out = apply(record, seed, **jitter)
            if not len(out["boxes"]) or not out["keypoints"][0, 0, 2]:
                continue
            weights = out["image"][..., 0].astype(float)
            rows, columns = np.mgrid[:64, :64] + 0.5
            seen = [(weights * places).sum() / weights.sum() for places in (columns, rows)]
            there = out["keypoints"][0, 0, :2]
            if there.min() > 4 and there.max() < 60:
                np.testing.assert_allclose(seen, there, atol=0.15)
                turns.append(out["geometry"].affine[1] / out["geometry"].affine[0])
    assert len(turns) > 12
    assert max(turns) > 0.5 > -0.5 > min(turns)


def test_jitter_stays_within_its_bounds():
    centres, sides, angles = [], [], []
    for seed in range(200):
        geometry = apply(record_of(), seed, scale_range=(0.5, 2.0), rotation=30.0, shift=0.25)[
            "geometry"
        ]
        (centre,) = geometry.inverse_points(np.float32([[32, 32]]))
        centres.append((centre - [70, 30]) / 40)
        sides.append(64 / geometry.determinant**0.5 / 50)
        angles.append(np.degrees(np.arctan2(geometry.affine[3], geometry.affine[0])))
    for values, low, high in (
        (centres, -0.25, 0.25), (sides, 0.5, 2.0), (angles, -30, 30)
    ):  # fmt: skip
        spread = high - low
        assert low <= np.min(values) < low + 0.05 * spread
        assert high - 0.05 * spread < np.max(values) <= high


def test_a_large_object_is_made_smaller_without_aliasing():
    stripes = np.zeros((640, 640, 1), np.uint8)
    stripes[::2] = 255
    box = np.float32([[33, 33, 633, 633]])  # not on whole pixels of the output
    record = {"image": stripes, "boxes": box, "box_label": np.zeros(1, int),
              "box_crowd": np.zeros(1, bool)}  # fmt: skip
    inner = apply(record, scale=1.0)["image"][4:-4]
    assert abs(inner.astype(float) - 127.5).max() < 20  # nine rows are five and four stripes
    rough = apply(record, scale=1.0, antialias=False)["image"][4:-4]
    assert abs(rough.astype(float) - 127.5).max() > 60


def test_evaluation_refuses_what_is_random():
    def random(**parameters):
        return transforms.compose([{"name": "crop_object", "size": 8, **parameters}], KIND).random

    assert not random()
    assert not random(scale=2.0, choice="largest", scale_range=[1, 1], rotation=0)
    for parameters in (
        {"choice": "random"}, {"scale_range": (0.9, 1.1)}, {"rotation": 5}, {"shift": 0.1}
    ):  # fmt: skip
        assert random(**parameters)
    assert apply(record_of())["geometry"] == apply(record_of(), 1)["geometry"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"choice": "larges"}, r"choice of crop_object 'larges'.*'largest'"),
        ({"size": (32, 64)}, r"size is \(32, 64\); expected one side"),
        ({"scale_range": (1.2, 0.8)}, "the smaller first"),
        ({"scale": 0}, "above 0"),
    ],
)
def test_wrong_parameters_are_met_before_any_record(parameters, message):
    with pytest.raises(UserError, match=message):
        transforms.compose([{"name": "crop_object", "size": 8, **parameters}], KIND)


def test_a_map_that_shrinks_keeps_the_mean_of_what_it_covers():
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    turn = Geometry((0.15, -0.2, 20.0, 0.2, 0.15, 2.0), (90, 120), (40, 50))
    smooth = turn.image(image).astype(float)
    inside = turn.image(np.full_like(image, 255)) == 255
    assert smooth[inside].std() < 0.6 * turn.image(image, antialias=False)[inside].std()
    assert smooth[inside].mean() == pytest.approx(image.mean(), abs=4)
