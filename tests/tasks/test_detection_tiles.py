"""Objects of a photograph that is looked at in tiles, by hand and by a small network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxvision import models, runs, tasks
from jaxvision.errors import UserError
from jaxvision.interop import torch_weights
from jaxvision.ops.tiling import Tiling
from jaxvision.runs.predicting import predict_files
from jaxvision.runs.tiles import predict_joined
from jaxvision.tasks.detection.task import Detection
from jaxvision.tasks.detection.tiles import joined


def found(*objects):
    """(box, score, label), and a row that is none."""
    rows = [*objects, ((0, 0, 0, 0), 0.0, 0)]
    boxes, scores, labels = zip(*rows)
    valid = np.arange(len(rows)) < len(objects)
    return {
        "boxes": np.float32(boxes),
        "scores": np.float32(scores),
        "labels": np.int32(labels),
        "valid": valid,
    }


CORNERS = np.array([[0, 0], [0, 60]])  # two tiles of 100x100 side by side


def test_objects_of_two_tiles_by_hand():
    left = found(
        ((10, 10, 30, 30), 0.6, 0),  # of the left tile alone
        ((80, 40, 100, 60), 0.9, 1),  # the left half of what the right one sees whole
        ((62, 70, 82, 90), 0.7, 0),  # seen by both
        ((85, 5, 99.5, 20), 0.4, 1),  # cut off, and of another class than what fits it
    )
    right = found(
        ((20, 40, 60, 60), 0.8, 1),
        ((2.5, 70, 22, 90), 0.75, 0),
        ((25, 5, 70, 20), 0.5, 0),
    )
    both = joined([left, right], CORNERS, (100, 100), (100, 160), 0.5)
    assert both["valid"].all()
    np.testing.assert_allclose(both["scores"], [0.8, 0.75, 0.6, 0.5, 0.4])
    np.testing.assert_array_equal(both["labels"], [1, 0, 0, 0, 1])
    expected = [
        [80, 40, 120, 60],
        [62.5, 70, 82, 90],
        [10, 10, 30, 30],
        [85, 5, 130, 20],
        [85, 5, 99.5, 20],
    ]
    np.testing.assert_allclose(both["boxes"], expected)


def test_what_else_is_found_comes_along():
    left, right = found(((10, 10, 30, 30), 0.6, 0)), found(((20, 40, 60, 60), 0.8, 1))
    for one, value in ((left, 1), (right, 2)):
        one["masks"] = np.full((2, 3, 3), value, np.float32)
        one["keypoints"] = np.float32([[[25, 50, value]], [[0, 0, 0]]])
    both = joined([left, right], CORNERS, (100, 100), (100, 160), 0.5)
    np.testing.assert_array_equal(both["masks"][:, 0, 0], [2, 1])
    np.testing.assert_array_equal(both["keypoints"][:, 0], [[85, 50, 2], [25, 50, 1]])


def test_what_no_tile_sees_whole_stays():
    left, right = found(((20, 40, 100, 60), 0.9, 1)), found(((0, 40, 90, 60), 0.8, 1))
    both = joined([left, right], CORNERS, (100, 100), (100, 160), 0.5)
    np.testing.assert_allclose(both["boxes"], [[20, 40, 100, 60], [60, 40, 150, 60]])


def test_edges_of_the_photograph_cut_nothing_off():
    left, right = found(((0, 0, 40, 100), 0.9, 0)), found(((70, 3, 100, 100), 0.8, 0))
    both = joined([left, right], CORNERS, (100, 100), (100, 160), 0.5)
    np.testing.assert_allclose(both["boxes"], [[0, 0, 40, 100], [130, 3, 160, 100]])


def test_nothing_found():
    both = joined([found(), found()], CORNERS, (100, 100), (100, 160), 0.5)
    assert both["boxes"].shape == (0, 4)
    assert not both["valid"].size


def bright(tile):
    """One object: the box around all bright pixels."""
    rows, columns = (np.nonzero(tile[..., 0].max(axis) > 0)[0] for axis in (1, 0))
    if not len(rows):
        return found()
    return found(((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1), 0.5, 0))


@pytest.mark.parametrize("corner", [(3, 5), (44, 61), (90, 20), (60, 119)])
def test_a_square_is_found_once_wherever_it_is(corner):
    image = np.zeros((113, 141, 3), np.uint8)
    row, column = corner
    image[row : row + 20, column : column + 20] = 255

    def join(outputs, corners, tile, size):
        return joined(outputs, corners, tile, size, 0.5)

    both = predict_joined(bright, join, image, (64, 48), overlap=0.5)
    np.testing.assert_allclose(both["boxes"], [[column, row, column + 20, row + 20]])
    assert len(Tiling.of((113, 141), (64, 48), (64, 48), 0.5).corners()) == 3 * 5


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """FastestDet with drawn weights, as a file of weights gives it."""
    folder, rng = tmp_path_factory.mktemp("tiles"), np.random.default_rng(0)
    config = tasks.default_config("detection")
    config.data.classes = ("a", "b")
    config.data.eval_transforms = ()
    config.model.name = "fastestdet"
    config.model.options = {"widths": (4, 8, 12, 16), "depths": (1, 1, 1), "max_detections": 20}
    network = models.create("fastestdet", 2, **config.model.options.to_dict())
    like = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    variables = jax.tree.map(lambda p: rng.normal(0, 0.4, p.shape).astype(p.dtype) ** 2, like)
    torch_weights.save(folder / "w.safetensors", variables, models.variant("fastestdet").export)
    return runs.with_weights(config, str(folder / "w.safetensors"))


def test_a_photograph_that_fits_one_tile_is_found_as_without(opened, tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    files = []
    for name, size in (("small.png", (64, 96, 3)), ("large.png", (128, 96, 3))):
        Image.fromarray(rng.integers(0, 256, size, np.uint8)).save(tmp_path / name)
        files.append(tmp_path / name)
    whole = list(predict_files(opened, files))
    small, large = predict_files(opened, files, tile=(96,), overlap=0.5)
    assert whole[0].outputs["valid"].sum() > 2
    for key, value in whole[0].outputs.items():
        np.testing.assert_array_equal(small.outputs[key], value)
    assert large.outputs["boxes"][:, 3].max() > 96  # in the photograph's pixels
    assert (np.diff(large.outputs["scores"]) <= 0).all()
    runs.write_predictions(opened, [small, large], tmp_path / "out", files)
    assert Image.open(tmp_path / "out" / "large.png").size[0] >= 96


class Given(nn.Module):
    PROPOSALS = True


def test_networks_with_proposals_and_other_tasks_do_not_predict_by_tiles(opened, tmp_path):
    task = Detection(model=Given(), class_names=("a",))
    other = runs.with_weights(opened.config, opened.weights)
    other.__dict__["task"] = task
    with pytest.raises(UserError, match="needs proposals and proposal_valid of the whole image"):
        next(predict_files(other, [tmp_path / "no.png"], tile=(96,)))
    classification = tasks.TASKS["classification"].task()
    with pytest.raises(
        UserError, match="not for classification; it is for segmentation, detection"
    ):
        tasks.require(classification, ("pixel_probabilities", "join_tiles"), "Tiles")
