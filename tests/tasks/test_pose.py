"""Pose: what is trained, what is scored, what is shown, with a network that says the same."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from PIL import Image

from jaxvision import runs, tasks
from jaxvision.data.facts import Facts
from jaxvision.data.geometry import Geometry
from jaxvision.errors import UserError
from jaxvision.interop import torch_weights
from jaxvision.ops.heatmaps import gaussians
from jaxvision.runs import Prediction
from jaxvision.tasks import base, configuration, skeletons
from jaxvision.tasks.inputs import Inputs
from jaxvision.tasks.pose import report
from jaxvision.tasks.pose.task import Pose

KEY = jax.random.key(0)
NAMES = ("left eye", "right eye", "nose")
FACTS = Facts(("face",), keypoint_names=NAMES, keypoint_pairs=((0, 1),), skeleton=((0, 2), (1, 2)))
# In pixels of the network's image of 16x32, whose heat maps have 8x16.
POINTS = np.float32([[5, 5, 1], [21, 7, 1], [13, 11, 1]])


class Fixed(nn.Module):
    """Finds the same points in every image; in training an earlier head finds nothing."""

    points: tuple = tuple(map(tuple, POINTS[:, :2] / 2))

    @nn.compact
    def __call__(self, image, train=False):
        one = self.param("one", nn.initializers.ones, ())
        maps = gaussians(jnp.array(self.points), (8, 16), 1.0)
        maps = jnp.tile(maps, (len(image), 1, 1, 1)) * one
        return {"aux1": 0 * maps, "logits": maps} if train else maps


class Bright(nn.Module):
    """Heat maps of three colours: they follow a mirrored image, and exchange nothing."""

    @nn.compact
    def __call__(self, image, train=False):
        one = self.param("one", nn.initializers.ones, ())
        return image[:, ::2, ::2] * one


def batch(**more):
    """Three images, of photographs of twice the size; the last one only fills the batch."""
    geometry = Geometry.resize((32, 64), (16, 32)).as_array()
    truth = np.stack([POINTS, POINTS + np.float32([3, 0, 0]), POINTS])
    truth[1, 2, 2] = 0
    boxes = np.float32([[[1, 2, 25, 14]], [[4, 2, 28, 14]], [[0, 0, 0, 0]]])
    return {
        "image": jnp.zeros((3, 16, 32, 3), jnp.uint8),
        "keypoints": jnp.asarray(truth[:, None]),
        "boxes": jnp.asarray(boxes),
        "box_label": jnp.zeros((3, 1), jnp.int32),
        "box_valid": jnp.array([[True], [True], [False]]),
        "box_crowd": jnp.zeros((3, 1), bool),
        "valid": jnp.array([True, True, False]),
        "geometry": jnp.asarray(np.tile(geometry, (3, 1, 1))),
        "image_size": jnp.asarray(np.tile(np.array([32, 64], np.int32), (3, 1))),
        **more,
    }


def make(model=None, **fields):
    inputs = Inputs(mean=(0.0,), std=(1.0,), keypoint_order=FACTS.keypoint_order)
    given = {"keypoint_pairs": FACTS.keypoint_pairs, "skeleton": FACTS.skeleton, "inputs": inputs}
    return Pose(model or Fixed(), NAMES, **{**given, **fields})


def variables_of(task):
    return task.init(KEY, base.image_spec((16, 32, 3)))


def rows_of(task, given):
    sums, rows = task.evaluate(variables_of(task), given, KEY)
    valid = np.asarray(given["valid"])
    return sums, {key: np.asarray(value)[valid] for key, value in rows.items()}


# -- training --------------------------------------------------------------------------------------


def test_the_loss_is_of_every_head_and_of_what_is_labelled():
    task = make()
    objective, (_, sums) = task.loss(variables_of(task)["params"], {}, batch(), KEY)
    own = np.asarray(gaussians(jnp.asarray(POINTS[:, :2] / 2), (8, 16), 1.0))
    moved = np.asarray(gaussians(jnp.asarray(POINTS[:, :2] / 2 + [1.5, 0]), (8, 16), 1.0))
    # Five maps count: three of the first image, which is right, and two of the second.
    expected = ((own - moved)[..., :2] ** 2).mean((0, 1)).sum() / 5
    nothing = ((own**2).mean((0, 1)).sum() + (moved[..., :2] ** 2).mean((0, 1)).sum()) / 5
    assert float(objective.means["logits"].value) == pytest.approx(expected, rel=1e-5)
    assert float(objective.means["aux1"].value) == pytest.approx(nothing, rel=1e-5)
    assert float(objective.loss) == pytest.approx(expected + nothing, rel=1e-5)
    assert sums["loss/aux1"].compute("x")["x"] == pytest.approx(nothing, rel=1e-5)


@pytest.mark.parametrize("where", [np.nan, -1e6])
def test_what_is_not_labelled_may_lie_anywhere(where):
    given = batch()
    points = np.asarray(given["keypoints"]).copy()
    points[..., :2] = where
    points[..., 2] = 0
    task = make()
    variables = variables_of(task)

    def loss(params):
        return task.loss(params, {}, {**given, "keypoints": jnp.asarray(points)}, KEY)[0].value

    value, gradient = jax.value_and_grad(loss)(variables["params"])
    assert float(value) == 0
    assert float(gradient["one"]) == 0


def test_the_first_valid_object_counts():
    task, given = make(), batch()
    two = {
        key: jnp.concatenate([given[key] * 0, given[key]], 1)
        for key in ("keypoints", "boxes", "box_label", "box_valid", "box_crowd")
    }
    (_, one), (_, other) = (rows_of(task, {**given, **more}) for more in ({}, two))
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_mirrored_batches_exchange_left_and_right():
    """A mirrored image with exchanged names costs what the image itself does."""
    flips = ({"name": "flip_horizontal", "probability": 1.0},)
    inputs = Inputs(augmentations=flips, keypoint_order=FACTS.keypoint_order)
    mirrored = POINTS[[1, 0, 2]] * [-1, 1, 1] + [32, 0, 0]
    task = make(inputs=inputs)
    given = batch(keypoints=jnp.asarray(np.tile(np.float32(mirrored), (3, 1, 1, 1))))
    objective, _ = task.loss(variables_of(task)["params"], {}, given, KEY)
    assert float(objective.means["logits"].value) == pytest.approx(0, abs=1e-10)


# -- evaluation ------------------------------------------------------------------------------------


def test_key_points_are_found_in_the_image():
    task = make()
    found = task.predict(variables_of(task), batch(), KEY)["keypoints"]
    assert found.shape == (3, 3, 3)
    np.testing.assert_allclose(found[..., 2], 1, atol=0.1)
    assert (np.abs(found[0, :, :2] - POINTS[:, :2]) <= 0.5).all()  # a quarter of two pixels


def test_scores_by_hand():
    task = make(tolerance=0.2)
    sums, rows = rows_of(task, batch())
    assert sums["loss"].weight == 5
    _, truth, lengths = task.measured(rows)
    np.testing.assert_allclose(lengths, [48, 48])  # of the photographs
    np.testing.assert_allclose(truth[0, :, :2], 2 * POINTS[:, :2], rtol=1e-6)
    # All of the first image, and of the second what is 6 of 9.6 pixels away.
    assert task.score(rows) == {"pck": 1.0, **{f"pck/{name}": 1.0 for name in NAMES}}
    strict = make(tolerance=0.1)
    scores = strict.score(rows)
    assert scores["pck"] == pytest.approx(3 / 5)
    assert (scores["pck/left eye"], scores["pck/nose"]) == (0.5, 1.0)
    assert set(scores) == set(strict.scores())
    assert all(base.metric_of(task, name) for name in scores)


def test_scores_by_two_key_points():
    task = make(segment=(0, 1), tolerance=0.2)
    _, rows = rows_of(task, batch())
    _, _, lengths = task.measured(rows)
    np.testing.assert_allclose(lengths, 2 * np.hypot(16, 2), rtol=1e-6)
    truth = np.asarray(batch()["keypoints"]).copy()
    truth[0, 0, 1, 2] = 0  # of the first image the length is not known
    _, rows = rows_of(task, batch(keypoints=jnp.asarray(truth)))
    assert task.measured(rows)[2][0] == 0
    assert np.isnan(task.score(rows)["pck/nose"])


def test_geometries_that_turn_lead_back():
    """Twice as large, turned by a quarter: what is found comes back to the photograph."""
    turn = Geometry((0.0, -1.0, 16.0, 1.0, 0.0, 0.0), (32, 16), (16, 32))
    given = batch(geometry=jnp.asarray(np.tile(turn.as_array(), (3, 1, 1))))
    task = make()
    _, rows = rows_of(task, given)
    found, truth, lengths = task.measured(rows)
    np.testing.assert_allclose(truth[0, 0], [5, 11, 1], atol=1e-4)
    np.testing.assert_allclose(lengths, [24, 24], atol=1e-4)
    assert np.abs(found[0] - truth[0])[:, :2].max() <= 0.51


def test_images_without_an_object_count_for_nothing():
    given = batch(box_valid=jnp.zeros((3, 1), bool))
    sums, rows = rows_of(make(), given)
    assert sums["loss"].weight == 0
    assert np.isnan(make().score(rows)["pck"])


def test_the_flip_test_is_the_mean_of_both_views():
    image = np.random.default_rng(0).integers(0, 256, (2, 16, 32, 3), np.uint8)
    task = make(Bright(), flip_test=True)
    seen = np.float32(image) / 255
    # The network sees every second column, of the mirrored image the others.
    expected = (seen[:, ::2, ::2] + seen[:, ::2, 1::2][..., [1, 0, 2]]) / 2
    maps = task.heatmaps(variables_of(task), jnp.asarray(image))
    np.testing.assert_allclose(maps, expected, rtol=1e-5)
    plain = make(Bright()).heatmaps(variables_of(task), jnp.asarray(image))
    np.testing.assert_allclose(plain, seen[:, ::2, ::2], rtol=1e-5)


# -- the door --------------------------------------------------------------------------------------


def configured(**keys):
    config = tasks.default_config("pose")
    config.model.name, config.model.options = "hourglass1", {"features": 16, "depth": 1}
    for key, value in keys.items():
        configuration.set_key(config, key.replace("__", "."), value)
    return config


@pytest.mark.parametrize(
    ("keys", "facts", "message"),
    [
        ({}, Facts(("face",)), "name no key points"),
        ({"pose__flip_test": True}, Facts(keypoint_names=NAMES), "flip_test mirrors images"),
        (
            {"data__augment": ({"name": "flip_horizontal"},)},
            Facts(keypoint_names=NAMES),
            "'flip_horizontal', but the data name no pairs",
        ),
        ({"pose__reference": "torso"}, FACTS, "two key points, such as 'left eye,nose'"),
        ({"pose__reference": "nose,nose"}, FACTS, "two key points"),
        ({"pose__reference": "nose,left ey"}, FACTS, r"'left ey'.*'left eye'"),
    ],
)
def test_what_does_not_fit_is_refused(keys, facts, message):
    with pytest.raises(UserError, match=message):
        tasks.create(configured(**keys), facts)


def test_what_fits_is_taken():
    flip = {"name": "flip_horizontal", "keypoint_order": (1, 0, 2)}
    tasks.create(configured(data__augment=(flip,)), Facts(keypoint_names=NAMES))
    task = tasks.create(configured(pose__reference="left eye, nose", pose__flip_test=True), FACTS)
    assert task.segment == (0, 2)
    assert task.model.num_classes == 3
    assert tasks.for_role("pose") == "pose"


def test_batches_without_key_points_are_refused():
    given = batch()
    with pytest.raises(UserError, match="have 2 key points, of which 3 have names"):
        rows_of(make(), {**given, "keypoints": given["keypoints"][:, :, :2]})
    del given["keypoints"]
    with pytest.raises(UserError, match="have no key points"):
        rows_of(make(), given)


# -- pictures --------------------------------------------------------------------------------------


def predicted():
    points = np.float32([[4, 4, 0.9], [20, 8, 0.5], [12, 12, 0.05]])
    geometry = Geometry.resize((32, 64), (16, 32))
    image = np.zeros((32, 64, 3), np.uint8)
    return Prediction(image, np.zeros((16, 32, 3), np.uint8), {"keypoints": points}, geometry)


def test_predictions_are_told_on_the_photograph(tmp_path):
    task, prediction = make(), predicted()
    assert report.summary(task, prediction) == {
        "keypoints": {
            "left eye": [8.0, 8.0, 0.9],
            "right eye": [40.0, 16.0, 0.5],
            "nose": [24.0, 24.0, 0.05],
        }
    }
    assert report.cell(task, prediction) == "2 of 3 key points, mean score 0.70"
    assert report.cell(make(threshold=0.95), prediction) == "0 of 3 key points"
    report.write(task, prediction, tmp_path, "x")
    picture = np.asarray(Image.open(tmp_path / "x.png"))
    assert picture.shape == (320, 640, 3)
    assert picture[80, 80].tolist() == list(skeletons.LEFT)
    assert picture[160, 400].tolist() == list(skeletons.RIGHT)
    assert not picture[240, 240].any()  # below the threshold, nor are its limbs there
    assert not picture[160, 160].any()


def test_evaluations_show_truth_and_prediction(tmp_path):
    task = make()
    outputs = jax.device_get(task.predict(variables_of(task), batch(), KEY))
    host = jax.device_get(batch())
    picture = report.picture(task, host, outputs)
    tile = 192 + 2, 2 * 384 + 2
    assert picture.shape == (2 * tile[0], 2 * tile[1], 3)
    assert picture[1 + 60, 1 + 60].tolist() == list(skeletons.LEFT)
    truth, found = picture[1:193, 1 : 1 + 768].reshape(192, 2, 384, 3).swapaxes(0, 1)
    assert np.abs(truth.astype(int) - found).mean() < 8
    unknown = report.picture(task, {"image": host["image"]}, outputs)
    assert unknown.shape == (2 * tile[0], 2 * (384 + 2), 3)
    _, rows = rows_of(task, batch())
    report.figures(task, rows, tmp_path)
    assert np.asarray(Image.open(tmp_path / "pck.png")).shape[:2] == (600, 840)


def test_colours_of_limbs():
    colours = skeletons.point_colours(4, ((0, 1),))
    assert colours == [skeletons.LEFT, skeletons.RIGHT, skeletons.MIDDLE, skeletons.MIDDLE]
    assert skeletons.limb_colour(colours, 0, 2) == skeletons.LEFT
    assert skeletons.limb_colour(colours, 2, 1) == skeletons.RIGHT
    assert skeletons.limb_colour(colours, 0, 1) == skeletons.MIDDLE
    assert skeletons.limb_colour(colours, 2, 3) == skeletons.MIDDLE
    own = skeletons.point_colours(3, ())
    assert len(set(own)) == 3
    assert skeletons.limb_colour(own, 0, 2) == own[2]


# -- a run -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A short training on shapes, whose files say what predictions need."""
    from jaxvision.train import run

    folder = tmp_path_factory.mktemp("pose") / "run"
    config = configuration.load("configs/pose/shapes.py:smoke")
    metrics = run(config, folder)
    return folder, metrics


def test_a_run_predicts_and_evaluates(trained, tmp_path):
    folder, metrics = trained
    opened = runs.open(folder)
    assert opened.facts.keypoint_names == ("centre", "first", "second", "third")
    assert opened.facts.skeleton == ((0, 1), (0, 2), (0, 3))
    found, _ = opened.evaluate(output=tmp_path)
    assert found["pck"] == pytest.approx(metrics["pck"])
    assert (tmp_path / "pck.png").is_file()
    # Weights alone know nothing of the data; what these are evaluated on names the key points.
    torch_weights.save(tmp_path / "weights.safetensors", opened.variables)
    alone = runs.with_weights(opened.config, str(tmp_path / "weights.safetensors"))
    assert alone.evaluate()[0]["pck"] == found["pck"]
    photo = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)).save(photo)
    runs.write_predictions(opened, runs.predict_files(opened, [photo]), tmp_path / "out", [photo])
    (one,) = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert list(one["keypoints"]) == list(opened.facts.keypoint_names)
    # The photograph lies in the middle of a square of 60 pixels.
    for x, y, _ in one["keypoints"].values():
        assert 0 <= x <= 60
        assert -10 <= y <= 50
    assert (tmp_path / "out" / one["picture"]).is_file()
