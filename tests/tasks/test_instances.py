"""Instances: what is learnt, scored and shown of masks and key points."""

import json
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from PIL import Image
from pycocotools import mask as coco_masks

from jaxvision import tasks
from jaxvision.data.facts import Facts
from jaxvision.data.geometry import Geometry
from jaxvision.data.masks import paste
from jaxvision.errors import UserError
from jaxvision.losses import Ratio
from jaxvision.ops.roi import mask_overlaps
from jaxvision.runs import Prediction
from jaxvision.tasks import configuration
from jaxvision.tasks.inputs import Inputs
from jaxvision.tasks.instances import report
from jaxvision.tasks.instances.task import Instances

KEY = jax.random.key(0)
NAMES = ("a", "b")
BOXES = np.float32([[0, 0, 8, 8], [8, 4, 16, 12]])
CELLS = np.ones((2, 4, 4), np.float32)
CELLS[1, 2:] = 0
# As on the network's image of 16x16, and on the photograph, of twice the size.
MASKS, LARGE = (paste(CELLS, BOXES * factor, (16 * factor,) * 2).stack() for factor in (1, 2))


class Masks(nn.Module):
    """Finds two objects in every image, the second one's mask in the upper half of its box."""

    PARTS: ClassVar[tuple[str, ...]] = ("masks",)

    @nn.compact
    def __call__(self, image, train=False, targets=None):
        one = self.param("one", nn.initializers.ones, ())
        if train:
            pixels = jnp.unpackbits(targets["instance_masks"]).sum().astype(jnp.float32)
            return {"masks": Ratio(one * pixels, targets["mask_valid"].sum().astype(jnp.float32))}
        rows = len(image)
        found = {
            "boxes": jnp.array([*BOXES, [0, 0, 0, 0]], jnp.float32),
            "scores": jnp.array([0.9, 0.6, 0.0]),
            "labels": jnp.array([1, 0, 0]),
            "valid": jnp.array([True, True, False]),
            "masks": jnp.array([*CELLS, CELLS[0]]),
        }
        return {name: jnp.stack([value] * rows) * one.astype(value.dtype) for name, value in
                found.items()} | {"valid": jnp.stack([found["valid"]] * rows)}  # fmt: skip


class Points(Masks):
    PARTS: ClassVar[tuple[str, ...]] = ("keypoints",)

    @nn.compact
    def __call__(self, image, train=False, targets=None):
        found = Masks(name="masks")(image)
        del found["masks"]
        points = jnp.array([[[2.0, 2, 5], [6, 6, 4]], [[9, 5, 3], [15, 11, 2]], [[0, 0, 0]] * 2])
        return {**found, "keypoints": jnp.stack([points] * len(image))}


def batch(shift=0):
    """Two images of 16x16, made of photographs of twice the size, with the objects that are found,
    their masks and key points `shift` pixels further to the right; and a row of padding."""
    masks = np.zeros((3, 2, 16, 16), bool)
    masks[:2, ..., shift:] = MASKS[..., : 16 - shift]
    points = np.zeros((3, 2, 2, 3), np.float32)
    points[:2] = [[[2 + shift, 2, 1], [6 + shift, 6, 1]], [[9 + shift, 5, 1], [15, 11, 0]]]
    boxes = np.zeros((3, 2, 4), np.float32)
    boxes[:2] = BOXES
    there = np.array([[True, True], [True, True], [False, False]])
    geometry = Geometry.resize((32, 32), (16, 16)).as_array()
    return {
        "image": jnp.zeros((3, 16, 16, 3), jnp.uint8),
        "boxes": jnp.asarray(boxes),
        "box_label": jnp.array([[1, 0]] * 3),
        "box_valid": jnp.asarray(there),
        "box_crowd": jnp.zeros((3, 2), bool),
        "instance_masks": jnp.asarray(np.packbits(masks, axis=-1)),
        "mask_valid": jnp.asarray(there),
        "keypoints": jnp.asarray(points),
        "geometry": jnp.stack([geometry] * 3),
        "image_size": jnp.array([[32, 32]] * 3),
        "valid": jnp.array([True, True, False]),
    }


def task(model, **options):
    return Instances(model=model, class_names=NAMES, inputs=Inputs(num_classes=2), **options)


def scored(one, batch):
    variables = one.model.init(KEY, jnp.zeros((1, 16, 16, 3)))
    _, rows = jax.jit(one.evaluate)(variables, batch, KEY)
    rows = {name: np.asarray(value)[np.asarray(batch["valid"])] for name, value in rows.items()}
    return one.score(rows)


def test_masks_that_are_found_exactly():
    scores = scored(task(Masks()), batch())
    assert scores["ap"] == scores["mask_ap"] == scores["mask_ap/a"] == 1
    # Pixels of the photographs: 16 x 16 and 16 x 8.
    assert scores["mask_ap_small"] == 1
    assert np.isnan(scores["mask_ap_medium"])
    assert set(task(Masks()).scores()) <= set(scores)


def test_overlap_of_masks_decides_and_not_of_boxes():
    moved = np.roll(MASKS[0], 2, axis=1)
    share = (moved & MASKS[0]).sum() / (moved | MASKS[0]).sum()
    assert 0.6 < share < 0.65  # of the ten overlaps from 0.5 on three are reached
    scores = scored(task(Masks()), batch(shift=2))
    np.testing.assert_allclose(scores["mask_ap/b"], 0.3)
    assert scores["ap/b"] == 1
    assert scores["mask_ap75"] == 0


def test_an_object_without_a_mask_is_not_counted():
    one = batch()
    bits = one["instance_masks"].at[:, 1].set(0)
    one |= {"instance_masks": bits, "mask_valid": one["mask_valid"].at[:, 1].set(False)}
    scores = scored(task(Masks()), one)
    assert scores["mask_ap/b"] == scores["mask_ap"] == 1
    assert np.isnan(scores["mask_ap/a"])
    one["mask_valid"] = one["box_valid"]
    assert scored(task(Masks()), one)["mask_ap/a"] == 0


def test_crowds_may_be_found_and_need_not():
    one = batch()
    one["box_crowd"] = one["box_crowd"].at[:, 1].set(True)
    scores = scored(task(Masks()), one)
    assert scores["mask_ap"] == 1
    assert np.isnan(scores["mask_ap/a"])


def test_key_points():
    """A point that is off by d counts exp(-d^2 / (8 a sigma^2)), a the area of the box."""
    scores = scored(task(Points()), batch())
    assert scores["keypoint_ap"] == scores["keypoint_ap/b"] == 1
    assert "mask_ap" not in scores
    # On the photographs both boxes have 256 pixels, and points are off by four.
    similarity = np.exp(-16 / (8 * 256 * 0.05**2))
    assert similarity < 0.5
    assert scored(task(Points()), batch(shift=2))["keypoint_ap50"] == 0
    sigma = np.sqrt(-16 / (8 * 256 * np.log(0.72)))  # five of ten overlaps are reached
    scores = scored(task(Points(), sigmas=(float(sigma),) * 2), batch(shift=2))
    np.testing.assert_allclose(scores["keypoint_ap"], 0.5)


def test_overlaps_are_those_of_masks_that_are_pasted():
    rng = np.random.default_rng(0)
    masks = rng.random((6, 7, 7)).astype(np.float32)
    corner = rng.uniform(-8, 60, (6, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(1, 40, (6, 2))], -1).astype(np.float32)
    true = rng.random((3, 70, 90)) < 0.4
    found = jax.jit(mask_overlaps, static_argnums=3)(masks, boxes, np.packbits(true, axis=-1), 90)
    pasted = paste(masks, boxes, (70, 90)).stack()
    np.testing.assert_array_equal(found.found, pasted.sum((1, 2)))
    np.testing.assert_array_equal(found.true, true.sum((1, 2)))
    expected = np.einsum("dhw,nhw->dn", pasted.astype(int), true.astype(int))
    np.testing.assert_array_equal(found.shared, expected)


def test_training_gives_masks_and_which_objects_have_one():
    one = task(Masks())
    variables = one.model.init(KEY, jnp.zeros((1, 16, 16, 3)))
    objective, _ = one.loss(variables["params"], {}, batch(), KEY)
    assert objective.means["masks"].total == 2 * MASKS.sum()
    assert objective.means["masks"].weight == 4


@pytest.mark.parametrize(
    ("model", "missing"), [(Masks(), "instance_masks"), (Points(), "keypoints")]
)
def test_data_without_what_is_to_be_found(model, missing):
    one = batch()
    del one[missing]
    with pytest.raises(UserError, match="but the data have none of objects"):
        scored(task(model), one)


def test_networks_that_find_boxes_alone_are_refused():
    config = configuration.load("configs/instances/shapes.py:smoke")
    config.model.name, config.model.options = "fastestdet", {}
    with pytest.raises(UserError, match="fastestdet finds boxes alone; its task is 'detection'"):
        tasks.create(config, Facts(class_names=NAMES))


def test_only_what_the_network_finds_is_read():
    config = configuration.load("configs/instances/shapes.py:smoke")
    assert Instances.unused_by(config) == ("keypoints",)
    config.model.name = "keypointrcnn_resnet50_fpn"
    assert Instances.unused_by(config) == ("instance_masks",)


def prediction(one):
    variables = one.model.init(KEY, jnp.zeros((1, 16, 16, 3)))
    outputs = one.predict(variables, {"image": jnp.zeros((1, 16, 16, 3), jnp.uint8)}, KEY)
    outputs = {name: np.asarray(value[0]) for name, value in outputs.items()}
    photograph = np.full((32, 32, 3), 200, np.uint8)
    geometry = Geometry.resize((32, 32), (16, 16))
    return Prediction(photograph, np.zeros((16, 16, 3), np.uint8), outputs, geometry)


def test_masks_are_shown_on_the_photograph(tmp_path):
    one, seen = task(Masks()), prediction(task(Masks()))
    summary = report.summary(one, seen)
    assert summary["boxes"] == [[0, 0, 16, 16], [16, 8, 32, 24]]
    masks = coco_masks.decode(json.loads(json.dumps(summary["masks"])))
    assert masks.shape == (32, 32, 2)
    np.testing.assert_array_equal(np.moveaxis(masks, -1, 0), LARGE)
    report.write(one, seen, tmp_path, "photo")
    numbered = np.asarray(Image.open(tmp_path / "photo_instances.png"))
    np.testing.assert_array_equal(numbered, np.where(masks[..., 0], 1, 2 * masks[..., 1]))
    assert Image.open(tmp_path / "photo.png").size == (320, 320)
    files = report.files(one, Facts(class_names=NAMES), [{**summary, "file": "7.jpg"}])
    assert [r["segmentation"] for r in files["coco.json"]] == summary["masks"]
    assert [r["image_id"] for r in files["coco.json"]] == [7, 7]


def test_key_points_are_shown_on_the_photograph(tmp_path):
    one, seen = task(Points(), skeleton=((0, 1),)), prediction(task(Points()))
    summary = report.summary(one, seen)
    assert summary["keypoints"] == [[[4, 4, 5], [12, 12, 4]], [[18, 10, 3], [30, 22, 2]]]
    report.write(one, seen, tmp_path, "photo")
    assert not (tmp_path / "photo_instances.png").exists()
    files = report.files(one, Facts(class_names=NAMES), [{**summary, "file": "x.jpg"}])
    assert files["coco.json"][0]["keypoints"] == [3.5, 3.5, 5, 11.5, 11.5, 4]


@pytest.mark.parametrize("model", [Masks(), Points()])
def test_a_picture_of_a_batch(model):
    one, found = task(model), prediction(task(model)).outputs
    outputs = {name: np.stack([value] * 3) for name, value in found.items()}
    picture = report.picture(one, {k: np.asarray(v) for k, v in batch().items()}, outputs)
    assert picture.dtype == np.uint8
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 3
