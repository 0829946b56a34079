"""Average precision of boxes against pycocotools' own numbers, and by hand."""

import json

import numpy as np
import pytest

from jaxvision.metrics.detection import (
    COCO_METRICS,
    Found,
    Ranked,
    Truth,
    coco_scores,
    confusion,
    proposal_recall,
    rank,
    voc_average_precision,
    voc_scores,
)


def truth(*rows):
    """Rows (image, box, label, crowd)."""
    image, boxes, label, crowd = zip(*rows) if rows else ((), (), (), ())
    boxes = np.array(boxes, np.float64).reshape(-1, 4)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    return Truth(np.array(image, int), boxes, np.array(label, int), np.array(crowd, bool), area)


def found(*rows):
    """Rows (image, box, label, score)."""
    image, boxes, label, score = zip(*rows) if rows else ((), (), (), ())
    boxes = np.array(boxes, np.float64).reshape(-1, 4)
    return Found(np.array(image, int), boxes, np.array(label, int), np.array(score, float))


A, B, C = (0, 0, 10, 10), (20, 0, 40, 20), (0, 30, 40, 70)


def test_coco_numbers_are_those_of_pycocotools(shared_data):
    folder = shared_data / "coco_mini_val"
    given = json.loads((folder / "annotations" / "instances_val2017.json").read_text())
    results = json.loads((folder / "evaluator_parity" / "bbox_fastestdet.json").read_text())
    expected = json.loads((folder / "evaluator_parity" / "expected.json").read_text())
    ids = [one["id"] for one in given["categories"]]

    def corners(objects):
        boxes = np.array([one["bbox"] for one in objects])
        return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], -1)

    def column(objects, key):
        return np.array([one[key] for one in objects])

    def classes(objects):
        return np.searchsorted(ids, column(objects, "category_id"))

    annotations = given["annotations"]
    scores = coco_scores(
        Found(
            column(results, "image_id"),
            corners(results),
            classes(results),
            column(results, "score"),
        ),
        Truth(
            column(annotations, "image_id"),
            corners(annotations),
            classes(annotations),
            column(annotations, "iscrowd").astype(bool),
            column(annotations, "area"),
        ),
        [one["id"] for one in given["images"]],
        [one["name"] for one in given["categories"]],
    )
    stats = expected["bbox_fastestdet"]["stats"]
    np.testing.assert_allclose([scores[name] for name in COCO_METRICS], stats, rtol=1e-12)
    each = [value for name, value in scores.items() if name.startswith("ap/")]
    assert len(each) == 80
    np.testing.assert_allclose(np.nanmean(each), scores["ap"], rtol=1e-12)


def test_coco_numbers_by_hand():
    there = truth((7, A, 0, False), (7, C, 0, False), (9, B, 1, False))
    # A is found exactly, C at an overlap of 0.5625, and a box where nothing is in between.
    seen = found((7, A, 0, 0.9), (9, A, 0, 0.8), (7, (0, 30, 40, 52.5), 0, 0.7))
    scores = coco_scores(seen, there, [7, 8, 9], ("a", "b", "c"))
    # Precision 1 up to recall 0.5 (51 of 101 points); at overlaps 0.5 and 0.55 then 2/3.
    low, high = (51 + 50 * 2 / 3) / 101, 51 / 101
    assert scores["ap/a"] == pytest.approx((2 * low + 8 * high) / 10)
    assert scores["ap/b"] == 0
    assert np.isnan(scores["ap/c"])
    assert scores["ap"] == pytest.approx(scores["ap/a"] / 2)
    assert scores["ap50"] == pytest.approx(low / 2)
    assert scores["ar_1"] == pytest.approx((1 / 2 + 0) / 2)
    assert scores["ap_small"] == pytest.approx((1 + 0) / 2)
    assert np.isnan(scores["ap_large"])


@pytest.mark.parametrize("there", [truth(), truth((0, A, 0, False)), truth((0, A, 0, True))])
def test_nothing_found_or_nothing_there(there):
    scores = coco_scores(found(), there, [0, 1], ("a",))
    assert len(scores) == 13
    expected = 0.0 if len(there.image) and not there.crowd[0] else np.nan
    np.testing.assert_equal(scores["ap"], expected)
    scores = coco_scores(found((1, A, 0, 0.5)), there, [0, 1], ("a",))
    np.testing.assert_equal(scores["ap50"], expected)
    np.testing.assert_equal(voc_scores(found(), there, ("a",))["map_voc2012"], expected)


def test_ranks_by_the_rules_of_voc():
    there = truth((0, A, 0, False), (0, B, 0, True), (1, A, 0, False), (1, A, 1, False))
    seen = found(
        (0, (0, 0, 10, 9), 0, 0.9),  # right
        (0, A, 0, 0.8),  # the same object again: wrong
        (0, B, 0, 0.7),  # difficult: not counted
        (1, (0, 0, 10, 4), 0, 0.6),  # an overlap of 0.4
        (1, (0, 0, 10, 5), 0, 0.5),  # of 0.5: right
        (1, A, 2, 0.4),  # of another class
    )
    ranked = rank(seen, there, 0)
    np.testing.assert_array_equal(ranked.right, [True, False, False, True])
    np.testing.assert_allclose(ranked.score, [0.9, 0.8, 0.6, 0.5])
    assert ranked.objects == 2
    np.testing.assert_allclose(ranked.precision, [1, 1 / 2, 1 / 3, 1 / 2])
    np.testing.assert_allclose(ranked.recall, [0.5, 0.5, 0.5, 1.0])
    # Area: half at precision 1, half at 1/2. Eleven points: six at 1, five at 1/2.
    assert voc_average_precision(ranked) == pytest.approx(0.75)
    assert voc_average_precision(ranked, 2007) == pytest.approx((6 + 5 / 2) / 11)
    scores = voc_scores(seen, there, ("a", "b", "c"))
    assert scores["map_voc2012"] == pytest.approx(0.375)
    assert scores["ap_voc2012/b"] == 0
    assert np.isnan(scores["ap_voc2012/c"])


def test_the_area_is_that_below_the_envelope():
    ranked = Ranked(np.arange(4.0), np.array([False, True, True, False]), 4)
    # Precisions 0, 1/2, 2/3, 1/2 at recalls 0, 1/4, 1/2, 1/2: the envelope is 2/3 up to 1/2.
    assert voc_average_precision(ranked) == pytest.approx(0.5 * 2 / 3)
    assert voc_average_precision(ranked, 2007) == pytest.approx(6 / 11 * 2 / 3)


def test_confusion_by_hand():
    there = truth((0, A, 0, False), (0, B, 1, False), (0, C, 0, True), (2, A, 1, False))
    seen = found(
        (0, A, 1, 0.9),  # found as another class
        (0, B, 1, 0.9),
        (0, C, 0, 0.9),  # a crowd: left out
        (1, A, 0, 0.9),  # where nothing is
        (2, A, 1, 0.1),  # not sure enough
    )
    matrix = confusion(seen, there, 2)
    np.testing.assert_array_equal(matrix, [[0, 1, 0], [0, 1, 1], [1, 0, 0]])


def test_recall_of_proposals_by_hand():
    there = [
        np.float32([[0, 0, 10, 10], [20, 0, 30, 10]]),
        np.zeros((0, 4)),
        np.float32([[0, 0, 4, 4]]),
    ]
    proposals = [
        np.float32([[50, 50, 60, 60], [0, 0, 10, 5], [20, 0, 30, 4]]),  # 0, exactly 0.5, 0.4
        np.float32([[0, 0, 4, 4]]),
        np.zeros((0, 4), np.float32),
    ]
    assert proposal_recall(proposals, there, (1, 2, 3)) == {
        1: 0,
        2: pytest.approx(1 / 3),
        3: pytest.approx(1 / 3),
    }
    assert proposal_recall(proposals, there, (3,), 0.4)[3] == pytest.approx(2 / 3)
    assert np.isnan(proposal_recall([], [], (1,))[1])
