"""Detection: what is trained, what is scored, what is shown, with a network that says the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxvision import tasks
from jaxvision.data.facts import Facts
from jaxvision.data.geometry import Geometry
from jaxvision.errors import UserError
from jaxvision.losses import Ratio
from jaxvision.runs import Prediction
from jaxvision.tasks import base, configuration
from jaxvision.tasks.detection import report
from jaxvision.tasks.detection.task import Detection, on_photographs
from jaxvision.tasks.inputs import Inputs

KEY = jax.random.key(0)
NAMES = ("a", "b")


class Fixed(nn.Module):
    """Finds the same two objects in every image, and is trained to count the true ones."""

    @nn.compact
    def __call__(self, image, train=False, targets=None):
        one = self.param("one", nn.initializers.ones, ())
        rows = len(image)
        if train:
            count = targets["box_valid"].sum().astype(jnp.float32)
            crowds = targets["box_crowd"].sum().astype(jnp.float32)
            return {"boxes": Ratio(one * count, count), "crowds": Ratio(one * crowds, jnp.ones(()))}
        boxes = jnp.array([[0, 0, 4, 4], [4, 2, 8, 4], [0, 0, 0, 0]], jnp.float32)
        return {
            "boxes": jnp.tile(boxes * one, (rows, 1, 1)),
            "scores": jnp.tile(jnp.array([0.9, 0.4, 0.0]), (rows, 1)),
            "labels": jnp.tile(jnp.array([1, 0, 0]), (rows, 1)),
            "valid": jnp.tile(jnp.array([True, True, False]), (rows, 1)),
        }


class Given(Fixed):
    """Finds what it is given."""

    PROPOSALS = True

    @nn.compact
    def __call__(self, image, proposals=None, proposal_valid=None, train=False, targets=None):
        one = self.param("one", nn.initializers.ones, ())
        if proposals is None:
            proposals, proposal_valid = (
                jnp.zeros((len(image), 1, 4)),
                jnp.ones((len(image), 1), bool),
            )
        if train:
            count = (proposals[..., 2] * proposal_valid).sum()
            return {"count": Ratio(one * count, jnp.ones(()))}
        scores = proposal_valid * one
        return {
            "boxes": proposals,
            "scores": scores,
            "labels": proposal_valid.astype(jnp.int32),
            "valid": proposal_valid,
        }


def batch():
    """Two images, made of photographs of twice the size; a row that only fills the batch."""
    photograph = np.array([8, 16], np.int32)
    geometry = Geometry.resize((8, 16), (4, 8)).as_array()
    boxes = [[[0, 0, 4, 4], [4, 2, 8, 4]], [[0, 0, 2, 2], [0, 0, 0, 0]], [[0, 0, 0, 0]] * 2]
    return {
        "image": jnp.zeros((3, 4, 8, 3), jnp.uint8),
        "boxes": jnp.array(boxes, jnp.float32),
        "box_label": jnp.array([[1, 0], [1, 0], [0, 0]]),
        "box_valid": jnp.array([[True, True], [True, False], [False, False]]),
        "box_crowd": jnp.array([[False, True], [False, False], [False, False]]),
        "box_area": jnp.array([[10.0, 6.0], [4.0, 0.0], [0.0, 0.0]]),
        "valid": jnp.array([True, True, False]),
        "geometry": jnp.asarray(np.tile(geometry, (3, 1, 1))),
        "image_size": jnp.asarray(np.tile(photograph, (3, 1))),
    }


@pytest.fixture(scope="module")
def task():
    return Detection(Fixed(), NAMES, voc=("2007", "2012"))


def rows_of(task, given):
    variables = task.init(KEY, base.image_spec((4, 8, 3)))
    sums, rows = task.evaluate(variables, given, KEY)
    assert sums == {}
    return {key: np.asarray(value)[np.asarray(given["valid"])] for key, value in rows.items()}


def test_boxes_are_scored_on_the_photographs(task):
    found, truth = on_photographs(rows_of(task, batch()))
    np.testing.assert_array_equal(found.image, [0, 0, 1, 1])
    np.testing.assert_array_equal(found.boxes[:2], [[0, 0, 8, 8], [8, 4, 16, 8]])
    np.testing.assert_array_equal(truth.image, [0, 0, 1])
    np.testing.assert_array_equal(truth.boxes[2], [0, 0, 4, 4])
    np.testing.assert_array_equal(truth.crowd, [False, True, False])
    np.testing.assert_allclose(truth.area, [40, 24, 16])


def test_scores_by_hand(task):
    scores = task.score(rows_of(task, batch()))
    # Class b: found where it is, and elsewhere at an overlap of 1/4. The other is a crowd.
    assert scores["ap50"] == pytest.approx(51 / 101)
    assert scores["ap/b"] == pytest.approx(51 / 101)
    assert np.isnan(scores["ap/a"])
    assert scores["map_voc2012"] == pytest.approx(0.5)
    assert scores["map_voc2007"] == pytest.approx(6 / 11)
    assert all(base.metric_of(task, name) for name in scores)


def test_data_without_areas_are_measured_by_their_boxes(task):
    given = {key: value for key, value in batch().items() if key != "box_area"}
    _, truth = on_photographs(rows_of(task, given))
    np.testing.assert_allclose(truth.area, [64, 32, 16])


def test_no_object_anywhere(task):
    given = {**batch(), "box_valid": jnp.zeros((3, 2), bool)}
    scores = task.score(rows_of(task, given))
    assert np.isnan(scores["ap"])


def test_crowds_and_rows_that_fill_are_not_trained(task):
    given = {**batch(), "box_valid": jnp.ones((3, 2), bool)}
    params = task.init(KEY, base.image_spec((4, 8, 3)))["params"]
    objective, (_, sums) = task.loss(params, {}, given, KEY)
    assert float(objective.means["boxes"].weight) == 3  # of four boxes in two images, one a crowd
    assert float(objective.means["crowds"].total) == 1
    assert float(objective.value) == 2
    assert sums["loss/boxes"].compute("loss/boxes") == {"loss/boxes": 1.0}


def test_data_without_boxes_are_refused(task):
    with pytest.raises(UserError, match="no boxes"):
        task.loss({}, {}, {"image": jnp.zeros((1, 4, 8, 3), jnp.uint8)}, KEY)


def test_proposals_reach_the_network_that_declares_them():
    task = Detection(Given(), NAMES)
    assert task.needs == ("proposals", "proposal_valid")
    variables = task.init(KEY, base.image_spec((4, 8, 3)))
    given = batch()
    given["proposals"] = jnp.tile(jnp.array([[0, 0, 4, 4], [4, 2, 8, 4.0]]), (3, 1, 1))
    given["proposal_valid"] = jnp.array([[True, False], [True, True], [False, False]])
    found = task.predict(variables, given, KEY)
    np.testing.assert_array_equal(found["boxes"], given["proposals"])
    rows = rows_of(task, given)
    np.testing.assert_array_equal(rows["found_valid"], given["proposal_valid"][:2])
    # In training they move with the image: of its 8 columns those of the second box become 0 to 4.
    mirror = ({"name": "flip_horizontal", "probability": 1.0},)
    moved = Detection(Given(), NAMES, Inputs(augmentations=mirror))
    for one, expected in ((task, 4 + 4 + 8), (moved, 8 + 8 + 4)):
        objective, _ = one.loss(variables["params"], {}, given, KEY)
        assert float(objective.value) == expected


def test_data_without_proposals_are_refused_by_the_transform_that_makes_them(task):
    assert task.needs == ()
    given = Detection(Given(), NAMES)
    variables = given.init(KEY, base.image_spec((4, 8, 3)))
    message = "Given needs proposals .* host transform {'name': 'selective_search'}"
    for call in (
        lambda: given.predict(variables, batch(), KEY),
        lambda: given.loss(variables["params"], {}, batch(), KEY),
    ):
        with pytest.raises(UserError, match=message):
            call()


def test_what_is_shown(task, tmp_path):
    variables = task.init(KEY, base.image_spec((4, 8, 3)))
    outputs = jax.device_get(task.predict(variables, batch(), KEY))
    host = {key: np.asarray(value) for key, value in batch().items()}
    assert report.picture(task, host, outputs).shape[-1] == 3
    image = np.zeros((20, 28, 3), np.uint8)
    geometry = Geometry.resize((20, 28), (10, 14)).then(Geometry.pad((10, 14), 1, 1, 16, 16))
    own = {key: value[0] for key, value in outputs.items()}
    prediction = Prediction(image, np.zeros((16, 16, 3), np.uint8), own, geometry)
    summary = report.summary(task, prediction)
    assert summary == {"boxes": [[0.0, 0.0, 6.0, 6.0]], "scores": [0.9], "classes": ["b"]}
    assert report.cell(task, prediction) == "1 b"
    low = Detection(Fixed(), NAMES, threshold=0.3)
    assert report.cell(low, prediction) == "1 b, 1 a"
    assert report.cell(low, prediction, top=1) == "1 b, 1 more classes"
    report.write(low, prediction, tmp_path, "x")
    assert (tmp_path / "x.png").is_file()


def test_results_in_the_form_of_coco(task):
    summary = {"boxes": [[1.0, 2.0, 4.5, 4.0]], "scores": [0.9], "classes": ["b"]}
    named, numbered = ({**summary, "file": f"x/{stem}.jpg"} for stem in ("cat", "000012"))
    found = report.files(task, Facts(), [named, numbered])["coco.json"]
    expected = {"category_id": 2, "bbox": [1.0, 2.0, 3.5, 2.0], "score": 0.9}
    assert found == [{**expected, "image_id": "cat"}, {**expected, "image_id": 12}]
    (one,) = report.files(task, Facts(category_ids=(5, 9)), [named])["coco.json"]
    assert one["category_id"] == 9


def test_pictures_of_an_evaluation(task, tmp_path):
    report.figures(task, rows_of(task, batch()), tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["confusion.png", "precision_recall.png"]
    empty = {**batch(), "box_valid": jnp.zeros((3, 2), bool)}
    report.figures(task, rows_of(task, empty), tmp_path)


def test_the_threshold_of_predict_is_the_tasks_own():
    from jaxvision.commands.predict import _set_threshold

    config = tasks.default_config("detection")
    _set_threshold(config, "0.25")
    assert config.detection.threshold == 0.25
    with pytest.raises(UserError, match=r"detection.threshold.*below 1"):
        _set_threshold(config, "1.5")
    with pytest.raises(UserError, match="Classification has no threshold"):
        _set_threshold(tasks.default_config("classification"), "0.5")


def test_a_list_of_choices_is_checked_one_by_one():
    config = tasks.default_config("detection")
    configuration.override(config, "detection.voc", "('2007', '2012')")
    configuration.validate(config)
    configuration.override(config, "detection.voc", "('2007', '2010')")
    with pytest.raises(UserError, match=r"value of detection.voc '2010'. Did you mean '2012'"):
        configuration.validate(config)
