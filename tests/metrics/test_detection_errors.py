"""The kinds of a detector's mistakes and their costs, by hand and against pycocotools' AP50."""

import json

import numpy as np
import pytest

from jaxvision.metrics.detection import Found, Truth
from jaxvision.metrics.detection_errors import KINDS, costs, counts, errors


def truth(*rows):
    """Rows (image, box, label, crowd)."""
    image, boxes, label, crowd = zip(*rows)
    boxes = np.array(boxes, np.float64)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    return Truth(np.array(image), boxes, np.array(label), np.array(crowd, bool), area)


def found(*rows):
    """Rows (image, box, label, score)."""
    image, boxes, label, score = zip(*rows) if rows else ((), (), (), ())
    boxes = np.array(boxes, np.float64).reshape(-1, 4)
    return Found(np.array(image, int), boxes, np.array(label, int), np.array(score, float))


A, B, CROWD = (0, 0, 10, 10), (20, 0, 30, 10), (50, 50, 90, 90)
SHIFTED = (0, 0, 10, 4)  # an overlap of 0.4 with A
THERE = truth((0, A, 0, 0), (0, B, 1, 0), (0, CROWD, 0, 1), (1, A, 0, 0))


@pytest.mark.parametrize(
    ("one", "kind"),
    [
        ((0, A, 0, 0.9), "right"),
        ((0, SHIFTED, 0, 0.9), "location"),
        ((0, A, 1, 0.9), "class"),
        ((0, SHIFTED, 1, 0.9), "class and location"),
        ((0, (70, 0, 80, 10), 0, 0.9), "background"),
        ((0, (55, 55, 60, 60), 0, 0.9), "ignored"),
        ((0, (55, 55, 60, 60), 1, 0.9), "background"),
        ((2, A, 0, 0.9), "background"),
    ],
)
def test_each_mistake_has_its_kind(one, kind):
    assert errors(found(one), THERE).kind.tolist() == [kind]


def test_what_is_found_twice_is_a_duplicate_of_the_surer_one():
    what = errors(found((0, A, 0, 0.5), (0, A, 0, 0.9)), THERE)
    assert what.kind.tolist() == ["duplicate", "right"]
    assert what.matched.tolist() == [True, False, False, False]
    assert what.missed.tolist() == [False, True, False, True]  # crowds need not be found


def test_what_would_be_found_if_it_were_put_right_is_not_missed():
    what = errors(found((0, SHIFTED, 0, 0.5), (0, B, 0, 0.9)), THERE)
    assert what.kind.tolist() == ["location", "class"]
    assert what.missed.tolist() == [False, False, False, True]
    assert counts(what) == {
        "class": 1, "location": 1, "class and location": 0, "duplicate": 0, "background": 0,
        "missed": 1,
    }  # fmt: skip


def test_costs_are_what_an_oracle_gains():
    # Of class 0 one of two objects is found, after a mistake: precision 1/2 up to a recall of 1/2,
    # which 51 of the 101 recalls do not exceed. Of class 1 nothing is found.
    there = truth((0, A, 0, 0), (1, A, 0, 0), (0, B, 1, 0))
    seen = found((0, (70, 0, 80, 10), 0, 0.9), (0, A, 0, 0.8), (1, SHIFTED, 0, 0.7))
    gained = costs(seen, there, 3)
    base = 51 / 101 / 2 / 2
    assert gained["ap50"] == pytest.approx(base)
    assert gained["background"] == pytest.approx(51 / 101 / 2 - base)
    # The third is right then: precisions 1/2 and, up to all recalls, 2/3.
    assert gained["location"] == pytest.approx(2 / 3 / 2 - base)
    # Only the object of class 1 has nothing near it.
    assert gained["missed"] == pytest.approx(1 / 2)
    assert gained["class"] == gained["duplicate"] == gained["class and location"] == 0


def test_the_surest_of_several_takes_the_object():
    there = truth(
        (0, A, 0, 0),
    )
    seen = found((0, A, 1, 0.3), (0, A, 1, 0.9), (0, A, 1, 0.5))
    gained = costs(seen, there, 2)
    assert gained["ap50"] == 0
    assert gained["class"] == pytest.approx(1)  # the others go, else its precision would be less


def test_nothing_found_and_nothing_there():
    gained = costs(found(), truth((0, A, 0, 0)), 1)
    assert gained["ap50"] == 0
    assert gained["missed"] == 1
    assert np.isnan(costs(found((0, A, 0, 0.5)), truth((0, A, 0, 1)), 1)["ap50"])


def test_average_precision_is_that_of_pycocotools(shared_data):
    folder = shared_data / "coco_mini_val"
    given = json.loads((folder / "annotations" / "instances_val2017.json").read_text())
    results = json.loads((folder / "evaluator_parity" / "bbox_fastestdet.json").read_text())
    expected = json.loads((folder / "evaluator_parity" / "expected.json").read_text())
    ids = [one["id"] for one in given["categories"]]

    def column(objects, key):
        return np.array([one[key] for one in objects])

    def corners(objects):
        boxes = column(objects, "bbox")
        return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], -1)

    def labels(objects):
        return np.searchsorted(ids, column(objects, "category_id"))

    there = given["annotations"]
    seen = Found(
        column(results, "image_id"), corners(results), labels(results), column(results, "score")
    )
    objects = Truth(
        column(there, "image_id"), corners(there), labels(there),
        column(there, "iscrowd").astype(bool), column(there, "area"),
    )  # fmt: skip
    gained = costs(seen, objects, len(ids))
    assert gained["ap50"] == pytest.approx(expected["bbox_fastestdet"]["stats"][1], rel=1e-9)
    assert all(gained[kind] >= -1e-9 for kind in KINDS)
    assert max(KINDS, key=gained.get) == "missed"
