"""The class and the box of the largest object."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxvision.data.geometry import Geometry
from jaxvision.ops import bits, boxes
from jaxvision.runs import Prediction
from jaxvision.tasks import base
from jaxvision.tasks.localization import report
from jaxvision.tasks.localization.task import Localization, extent_of, largest

KEY = jax.random.key(0)


class Fixed(nn.Module):
    """Says the same of every image."""

    logits: tuple = (0.0, 2.0)
    box: tuple = (0.0, 0.0, 0.5, 1.0)

    @nn.compact
    def __call__(self, image, train=False):
        one = self.param("one", nn.initializers.ones, ())
        rows = len(image)
        return {
            "logits": jnp.tile(jnp.array(self.logits), (rows, 1)) * one,
            "box": jnp.tile(jnp.array(self.box), (rows, 1)) * one,
        }


def batch():
    """Three images of 4x8 pixels; the last one only fills the batch."""
    masks = np.zeros((3, 2, 4, 8), bool)
    masks[0, 0, :2, :2] = True  # 4 pixels
    masks[0, 1, :, :4] = True  # 16 pixels
    masks[1, 0, 2:, 4:] = True
    return {
        "image": jnp.zeros((3, 4, 8, 3), jnp.uint8),
        "boxes": jnp.array(
            [[[0, 0, 2, 2], [0, 0, 4, 4]], [[4, 2, 8, 4], [0, 0, 0, 0]], [[0, 0, 0, 0]] * 2],
            jnp.float32,
        ),
        "box_label": jnp.array([[0, 1], [0, 0], [0, 0]]),
        "box_valid": jnp.array([[True, True], [True, False], [False, False]]),
        "instance_masks": bits.pack(jnp.asarray(masks)),
        "mask_valid": jnp.array([[True, True], [True, False], [False, False]]),
        "valid": jnp.array([True, True, False]),
    }


def test_overlaps_by_hand():
    pair = jnp.array([[0.0, 0.0, 2.0, 2.0]]), jnp.array([[1.0, 1.0, 3.0, 3.0]])
    assert float(boxes.iou(*pair)[0]) == pytest.approx(1 / 7)
    assert float(boxes.iou(pair[0], pair[0])[0]) == 1
    empty = jnp.array([[2.0, 2.0, 1.0, 3.0]])
    assert float(boxes.area(empty)[0]) == 0
    assert float(boxes.iou(empty, empty)[0]) == 0


def test_the_largest_is_that_of_the_most_visible_pixels():
    given = batch()
    extent = extent_of(given)
    assert extent.tolist() == [[4, 16], [8, 0], [0, 0]]
    label, box, found = largest(given["box_valid"], extent, given["box_label"], given["boxes"])
    assert label.tolist()[:2] == [1, 0]
    assert box.tolist()[:2] == [[0, 0, 4, 4], [4, 2, 8, 4]]
    assert found.tolist() == [True, True, False]


def test_loss_and_metrics_by_hand():
    task = Localization(Fixed(), ("a", "b"), box_weight=3.0)
    variables = task.init(KEY, base.image_spec((4, 8, 3)))
    sums, rows = task.evaluate(variables, batch(), KEY)
    assert rows == {}
    # The box found is (0, 0, 4, 4): that of the first image, and off the second's (4, 2, 8, 4).
    error = (0.5**2) * 2 + 0.5**2
    nll = [np.log1p(np.exp(-2)), 2 + np.log1p(np.exp(-2))]
    assert sums["loss"].compute("l")["l"] == pytest.approx((sum(nll) + 3 * error) / 2, rel=1e-5)
    assert sums["iou"].compute("i")["i"] == pytest.approx(0.5)
    assert sums["accuracy"].compute("a")["a"] == 0.5
    assert sums["localization_accuracy"].compute("a")["a"] == 0.5
    objective, _ = task.loss(variables["params"], {}, batch(), KEY)
    assert float(objective.value) == pytest.approx((sum(nll) + 3 * error) / 2, rel=1e-5)


def test_boxes_go_back_to_the_photograph(tmp_path):
    task = Localization(Fixed(), ("a", "b"))
    image = np.zeros((20, 28, 3), np.uint8)
    geometry = Geometry.resize((20, 28), (10, 14)).then(Geometry.pad((10, 14), 3, 1, 16, 16))
    outputs = {"probabilities": np.array([0.25, 0.75]), "box": np.array([3.0, 5.0, 9.0, 99.0])}
    prediction = Prediction(image, np.zeros((16, 16, 3), np.uint8), outputs, geometry)
    summary = report.summary(task, prediction)
    assert summary == {"class": "b", "probability": 0.75, "box": [4.0, 4.0, 16.0, 20.0]}
    assert report.cell(task, prediction) == "b 75.0% at 4 4 16 20"
    report.write(task, prediction, tmp_path, "x")
    assert (tmp_path / "x.png").is_file()
    host = {key: np.asarray(value) for key, value in batch().items()}
    outputs = jax.device_get(task.predict(task.init(KEY, base.image_spec((4, 8, 3))), batch(), KEY))
    np.testing.assert_allclose(outputs["box"][0], [0, 0, 4, 4])
    assert report.picture(task, host, outputs).ndim == 3
