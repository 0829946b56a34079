"""What tasks show of an evaluation in a report, by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from jaxvision.data.geometry import Geometry
from jaxvision.metrics import BoundaryF1, ConfusionMatrix
from jaxvision.report import Chart, Gallery, Page, Section, Table, render
from jaxvision.tasks.captioning import report as captioning
from jaxvision.tasks.classification import report as classification
from jaxvision.tasks.detection import report as detection
from jaxvision.tasks.evaluated import Evaluated
from jaxvision.tasks.pose import report as pose
from jaxvision.tasks.segmentation import report as segmentation


def evaluated(rows, sums=None, metrics=None, batch=None):
    def read(chosen):
        return {name: np.asarray(value)[list(chosen)] for name, value in (batch or {}).items()}

    return Evaluated("test", 3, metrics or {}, sums or {}, rows, read, lambda row: f"{row}.jpg")


def table(sections, caption):
    """The rows of the table of this caption, by what stands first."""
    tables = [p for s in sections for p in s.parts if isinstance(p, Table)]
    (found,) = [t for t in tables if t.caption.startswith(caption)]
    return {row[0]: dict(zip(found.columns, row)) for row in found.rows}


def charts_of(sections):
    return {p.title: p for s in sections for p in s.parts if isinstance(p, Chart)}


# -- classification --------------------------------------------------------------------------------

LABEL, FOUND = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 1, 0])
CLASSIFIED = {
    "label": LABEL,
    "found": FOUND,
    "probability": np.array([0.9, 0.8, 0.6, 0.95, 0.7, 0.99]),
    "probability_of_label": np.array([0.9, 0.8, 0.3, 0.95, 0.7, 0.005]),
}


@pytest.fixture
def classified():
    task = SimpleNamespace(class_names=("a", "b", "c", "d"))
    images = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1) * np.ones((1, 4, 4, 1), np.uint8)
    return classification.sections(task, evaluated(CLASSIFIED, batch={"image": images}))


def test_classes_have_their_recall_with_its_interval(classified):
    rows = table(classified, "Each class")
    assert list(rows) == ["c", "a", "b", "d"]  # the worst first, what never occurs last
    assert rows["a"]["recall"] == pytest.approx(2 / 3)
    assert rows["a"]["precision"] == pytest.approx(2 / 3)
    assert rows["b"]["95 % interval of recall"] == "0.342 to 1.000"
    assert rows["d"]["recall"] is rows["d"]["precision"] is rows["d"]["F1"] is None


def test_the_worst_mistake_stands_first(classified):
    (gallery,) = [p for s in classified for p in s.parts if isinstance(p, Gallery)]
    first, second, *rest = gallery.figures
    assert first.caption == "a (99%), is c (0.5%)"
    assert first.image[0, 0].tolist() == [5, 5, 5]
    assert (first.tags, first.wrong) == (("c", "a"), True)
    assert second.caption == "b (60%), is a (30.0%)"
    assert [figure.wrong for figure in rest] == [False] * 4


def test_confidence_is_compared_with_accuracy(classified):
    rows = table(classified, "Records by confidence")
    assert rows["0.9 to 1.0"]["records"] == 3
    assert rows["0.9 to 1.0"]["accuracy"] == pytest.approx(2 / 3)
    gaps = [(0.6, 0), (0.7, 1), (0.8, 1), ((0.9 + 0.95 + 0.99) / 3, 2 / 3)]
    error = sum(n * abs(a - b) for n, (a, b) in zip((1, 1, 1, 3), gaps)) / 6
    text = next(s for s in classified if s.title == "Confidence").parts[1].text
    assert f"{error:.4f}" in text


def test_of_many_classes_those_with_most_mistakes_are_shown():
    names = tuple(f"c{k}" for k in range(100))
    label = np.arange(100)
    found = np.where(label < 90, label, (label + 1) % 100)
    rows = {"label": label, "found": found, "probability": np.full(100, 0.5)}
    rows["probability_of_label"] = np.full(100, 0.5)
    given = evaluated(rows, batch={"image": np.zeros((100, 8, 8, 3), np.uint8)})
    sections = classification.sections(SimpleNamespace(class_names=names), given)
    chart = charts_of(sections)["Confusion matrix of the 40 classes with most mistakes"]
    shown = {value["a"] for value in chart.spec["data"]["values"]}
    assert {"c95", "c0"} <= shown
    assert "c50" not in shown
    assert len(render(Page("p", sections=sections)).encode()) < 2_000_000


# -- segmentation ----------------------------------------------------------------------------------


def test_pixels_are_counted_by_class_and_images_ranked():
    counts = np.array([[8, 2], [0, 0]])
    task = SimpleNamespace(class_names=("sky", "road"))
    sums = {
        "confusion": ConfusionMatrix(counts, class_names=("sky", "road")),
        "boundary_f1": BoundaryF1(np.array([1.5, 0.0]), np.array([2, 1])),
    }
    rows = {"right": np.array([0.5, 1.0, 0.25, 0.0]), "known": np.array([1, 1, 1, 0], bool)}
    masks = np.array([[[0, 1]], [[0, 0]], [[1, 255]], [[255, 255]]])
    found = evaluated(rows, sums, batch={"segmentation": masks})
    each = table(segmentation.sections(task, found), "Each class")
    assert each["sky"]["IoU"] == pytest.approx(0.8)
    assert each["sky"]["boundary F1"] == pytest.approx(0.75)
    assert each["road"]["IoU"] == 0
    assert each["road"]["recall"] is None
    worst = segmentation.mistakes(task, found, 10)
    assert [one.row for one in worst] == [2, 0, 1]  # the last is all void
    assert [one.tags for one in worst] == [("road",), ("sky", "road"), ("sky",)]
    assert [one.wrong for one in worst] == [True, True, False]
    assert worst[0].caption == "2.jpg: 25.0% of the pixels right"
    assert len(segmentation.mistakes(task, found, 1)) == 1


# -- detection -------------------------------------------------------------------------------------


@pytest.fixture
def detected():
    """Three images: all right; one of two found, one wrong; nothing there and one wrong."""
    box, other = [0, 0, 10, 10], [20, 20, 30, 30]
    way = Geometry.identity((40, 40)).as_array()
    rows = {
        "true_boxes": np.array([[box, box], [box, other], [box, box]], np.float32),
        "true_box_valid": np.array([[1, 0], [1, 1], [0, 0]], bool),
        "true_box_label": np.array([[0, 0], [0, 1], [0, 0]]),
        "true_box_crowd": np.zeros((3, 2), bool),
        "found_boxes": np.array([[box, box], [box, other], [box, box]], np.float32),
        "found_valid": np.array([[1, 0], [1, 1], [1, 1]], bool),
        "found_labels": np.array([[0, 0], [0, 0], [1, 1]]),
        "found_scores": np.array([[0.9, 0.1], [0.8, 0.7], [0.6, 0.2]], np.float32),
        "geometry": np.stack([way] * 3),
        "image_size": np.array([[40, 40]] * 3),
    }
    task = SimpleNamespace(class_names=("cat", "dog"), threshold=0.5, clip=True)
    metrics = {"ap": 0.5, "ap/cat": 0.75, "ap_small": 0.5, "ap_medium": 0.1, "ap_large": 0.2}
    return task, evaluated(rows, metrics=metrics)


def test_objects_are_counted_by_class_size_and_kind_of_mistake(detected):
    sections = detection.sections(*detected)
    each = table(sections, "Each class")
    assert each["cat"]["objects"] == 2
    assert each["cat"]["AP"] == 0.75
    assert each["cat"]["precision"] == pytest.approx(2 / 3)
    assert each["cat"]["recall"] == 1
    assert each["dog"]["recall"] == 0
    sizes = table(sections, "By size")
    assert [row["objects"] for row in sizes.values()] == [3, 0, 0]
    assert sizes["medium"]["ap"] == 0.1
    kinds = table(sections, "Kinds of mistakes")
    assert kinds["class"]["mistakes"] == 1
    assert kinds["background"]["mistakes"] == 2
    assert kinds["class"]["cost in AP50"] == pytest.approx(0.5)  # all that dogs can have
    assert {"Cost of mistakes", "Confusion matrix"} <= charts_of(sections).keys()
    assert render(Page("p", sections=sections))


def test_images_with_most_mistakes_stand_first(detected):
    worst = detection.mistakes(*detected, 3)
    assert [one.row for one in worst] == [2, 1, 0]
    assert worst[0].caption == "2.jpg: 1 wrong, 0 missed"
    assert worst[1].caption == "1.jpg: 1 wrong, 1 missed"
    assert worst[1].tags == ("cat", "dog")
    assert [one.wrong for one in worst] == [True, True, False]


def test_nothing_is_found():
    task = SimpleNamespace(class_names=("cat",), threshold=0.5, clip=True)
    rows = {
        "true_boxes": np.zeros((1, 1, 4), np.float32),
        "true_box_valid": np.zeros((1, 1), bool),
        "true_box_label": np.zeros((1, 1), int),
        "true_box_crowd": np.zeros((1, 1), bool),
        "found_boxes": np.zeros((1, 1, 4), np.float32),
        "found_valid": np.zeros((1, 1), bool),
        "found_labels": np.zeros((1, 1), int),
        "found_scores": np.zeros((1, 1), np.float32),
        "geometry": Geometry.identity((4, 4)).as_array()[None],
        "image_size": np.array([[4, 4]]),
    }
    sections = detection.sections(task, evaluated(rows))
    assert all(isinstance(section, Section) for section in sections)
    assert render(Page("p", sections=sections))


# -- key points and captions -----------------------------------------------------------------------


def test_key_points_are_counted_and_images_ranked():
    truth = np.array(
        [[[0, 0, 1], [10, 0, 1]], [[0, 0, 1], [10, 0, 0]], [[0, 0, 0], [1, 1, 0]]], float
    )
    guessed = truth + np.array([[[1, 0, 0], [5, 0, 0]], [[0, 0, 0], [9, 0, 0]], [[0, 0, 0]] * 2])
    task = SimpleNamespace(
        keypoint_names=("head", "foot"),
        segment=(),
        tolerance=0.2,
        measured=lambda rows: (guessed, truth, np.array([10.0, 10.0, 10.0])),
    )
    found = evaluated({"found": guessed})
    sections = pose.sections(task, found)
    each = table(sections, "Within 0.2 of longer side")
    assert list(each) == ["foot", "head"]
    assert each["head"] == {"key point": "head", "counted": 2, "found": 1.0}
    assert each["foot"] == {"key point": "foot", "counted": 1, "found": 0.0}
    points = charts_of(sections)["Found over the tolerance"].spec["data"]["values"]
    feet = [point["y"] for point in points if point["of"] == "foot"]
    assert feet == sorted(feet)
    assert (feet[0], feet[-1]) == (0, 1)
    worst = pose.mistakes(task, found, 5)
    assert [(one.row, one.wrong) for one in worst] == [(0, True), (1, False)]
    assert worst[0].caption == "0.jpg: 1 of 2 key points"


def test_captions_least_alike_stand_first():
    texts = ["a dog runs", "a cat"]
    true = [["a dog runs"], ["the moon", "the sun shines"]]
    task = SimpleNamespace(texts=lambda tokens: texts, references=lambda rows: true)
    found = evaluated({"found": np.zeros((2, 3), int)})
    sections = captioning.sections(task, found)
    rows = table(sections, "Captions of test")
    assert list(rows) == ["1.jpg", "0.jpg"]
    assert rows["1.jpg"]["true"] == "the moon / the sun shines"
    assert rows["0.jpg"]["ROUGE-L"] == pytest.approx(1)
    assert [one.caption for one in captioning.mistakes(task, found, 1)] == ["1.jpg, true: the moon"]
