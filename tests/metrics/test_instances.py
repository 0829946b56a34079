"""Average precision of masks and key points against pycocotools' own numbers, and by hand."""

import json

import numpy as np
import pytest
from pycocotools import mask as tools
from pycocotools.coco import COCO

from jaxvision.errors import UserError
from jaxvision.metrics.detection import COCO_METRICS
from jaxvision.metrics.instances import (
    COCO_SIGMAS,
    KEYPOINT_METRICS,
    MASK_METRICS,
    FoundMasks,
    FoundPoints,
    TrueMasks,
    TruePoints,
    keypoint_scores,
    mask_scores,
)


def column(objects, key):
    return np.array([one[key] for one in objects])


def given(folder, truth, results):
    """(truth, its annotations, results, expected numbers, classes of either)."""
    there = COCO(str(folder / "annotations" / truth))
    results = json.loads((folder / "evaluator_parity" / f"{results}.json").read_text())
    ids = there.getCatIds()
    annotations = there.dataset["annotations"]
    classes = [np.searchsorted(ids, column(each, "category_id")) for each in (annotations, results)]
    return there, annotations, results, classes


def expected(folder, name):
    stored = json.loads((folder / "evaluator_parity" / "expected.json").read_text())
    return stored[name]["stats"]


def test_masks_are_scored_as_pycocotools_does(shared_data):
    folder = shared_data / "coco_mini_val"
    there, annotations, results, classes = given(
        folder, "instances_val2017.json", "segm_perturbed_gt"
    )
    scores = mask_scores(
        FoundMasks(
            column(results, "image_id"),
            [one["segmentation"] for one in results],
            classes[1],
            column(results, "score"),
        ),
        TrueMasks(
            column(annotations, "image_id"),
            [there.annToRLE(one) for one in annotations],
            classes[0],
            column(annotations, "iscrowd").astype(bool),
            column(annotations, "area"),
        ),
        there.getImgIds(),
        [one["name"] for one in there.dataset["categories"]],
    )
    stats = expected(folder, "segm_perturbed_gt")
    assert [scores[name] for name in MASK_METRICS] == stats
    each = [value for name, value in scores.items() if name.startswith("mask_ap/")]
    assert len(each) == 80
    np.testing.assert_allclose(np.nanmean(each), scores["mask_ap"], rtol=1e-12)


def test_key_points_are_scored_as_pycocotools_does(shared_data):
    folder = shared_data / "coco_mini_val"
    there, annotations, results, classes = given(
        folder, "person_keypoints_val2017.json", "keypoints_perturbed_gt"
    )
    boxes = column(annotations, "bbox")
    scores = keypoint_scores(
        FoundPoints(
            column(results, "image_id"),
            column(results, "keypoints").reshape(-1, 17, 3)[..., :2],
            classes[1],
            column(results, "score"),
        ),
        TruePoints(
            column(annotations, "image_id"),
            np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], -1),
            column(annotations, "keypoints").reshape(-1, 17, 3).astype(float),
            classes[0],
            column(annotations, "iscrowd").astype(bool),
            column(annotations, "area"),
        ),
        there.getImgIds(),
        ["person"],
    )
    stats = expected(folder, "keypoints_perturbed_gt")
    assert [scores[name] for name in KEYPOINT_METRICS] == stats
    assert scores["keypoint_ap/person"] == scores["keypoint_ap"]


# -- by hand --------------------------------------------------------------------------------------


def rle(top, left, bottom, right):
    mask = np.zeros((40, 40), np.uint8, order="F")
    mask[top:bottom, left:right] = 1
    return tools.encode(mask)


def masks(*rows):
    image, shapes, label, crowd = zip(*rows)
    area = np.array([tools.area(one) for one in shapes], float)
    return TrueMasks(np.array(image), shapes, np.array(label), np.array(crowd), area)


def test_masks_by_hand():
    there = masks((0, rle(0, 0, 10, 10), 0, False), (1, rle(0, 0, 40, 40), 1, True))
    seen, label = [rle(0, 0, 10, 8), rle(3, 3, 9, 9)], np.array([0, 1])
    found = FoundMasks(np.array([0, 1]), seen, label, np.array([0.9, 0.8]))
    scores = mask_scores(found, there, [0, 1, 2], ("a", "b"))
    # An overlap of 0.8: found at 0.5, 0.55, ..., 0.8; what lies in a crowd is not counted.
    assert scores["mask_ap"] == pytest.approx(0.7)
    assert [scores["mask_ap50"], scores["mask_ap75"]] == pytest.approx([1, 1])
    assert scores["mask_ap_small"] == pytest.approx(0.7)
    assert np.isnan(scores["mask_ap_large"])
    assert np.isnan(scores["mask_ap/b"])
    assert len(scores) == len(COCO_METRICS) + 2
    none = FoundMasks(np.zeros(0, int), [], np.zeros(0, int), np.zeros(0))
    assert mask_scores(none, there, [0, 1], ("a", "b"))["mask_ap"] == 0


def points(offset, count=4, labelled=True):
    base = np.arange(2.0 * count).reshape(1, count, 2) * 10 + offset
    return np.concatenate([base, np.full_like(base[..., :1], labelled)], -1)


def people(keypoints, area=2500.0):
    count = len(keypoints)
    boxes = np.tile([[0.0, 0, 50, 50]], (count, 1))
    zeros = np.zeros(count, int)
    return TruePoints(
        np.arange(count), boxes, keypoints, zeros, zeros.astype(bool), np.full(count, area)
    )


def test_key_points_by_hand():
    there = people(points(0.0))
    for offset, sigmas in ((3.0, None), (3.0, (0.05,) * 4), (6.0, (0.1,) * 4)):
        found = FoundPoints(np.array([0]), points(offset)[..., :2], np.array([0]), np.array([0.5]))
        scores = keypoint_scores(found, there, [0], ("person",), sigmas)
        # Off by d along both axes: exp(-2 d^2 / (8 area sigma^2)) = exp(-0.36) = 0.698.
        assert scores["keypoint_ap"] == pytest.approx(0.4)
        assert [scores["keypoint_ap50"], scores["keypoint_ar50"]] == pytest.approx([1, 1])
        assert scores["keypoint_ap75"] == 0
        assert scores["keypoint_ap_medium"] == pytest.approx(0.4)
        assert np.isnan(scores["keypoint_ap_large"])
    assert len(scores) == 11


def test_people_without_points_are_neither_found_nor_missed():
    there = people(np.concatenate([points(0.0), points(0.0, labelled=False)]))
    found = FoundPoints(
        np.array([0, 1]), np.tile(points(0.0)[..., :2], (2, 1, 1)), np.zeros(2, int), np.ones(2)
    )
    scores = keypoint_scores(found, there, [0, 1], ("person",))
    assert scores["keypoint_ap"] == pytest.approx(1)
    none = FoundPoints(np.zeros(0, int), np.zeros((0, 4, 2)), np.zeros(0, int), np.zeros(0))
    assert keypoint_scores(none, there, [0, 1], ("person",))["keypoint_ar"] == 0
    with pytest.raises(UserError, match="There are 4 key points of an object, 4 found ones, and 3"):
        keypoint_scores(found, there, [0, 1], ("person",), (0.1,) * 3)


def test_cocos_sigmas():
    from pycocotools.cocoeval import Params

    np.testing.assert_allclose(COCO_SIGMAS, Params("keypoints").kpt_oks_sigmas, rtol=1e-12)
