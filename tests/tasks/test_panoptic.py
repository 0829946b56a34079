"""Panoptic segmentation: what is learnt, scored and shown of things and stuff."""

import dataclasses
import json
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from PIL import Image

from jaxvision import tasks
from jaxvision.data.facts import Facts
from jaxvision.data.geometry import Geometry
from jaxvision.data.masks import paste
from jaxvision.data.segment_maps import segment_numbers
from jaxvision.data.sources import open_split
from jaxvision.data.stream import open_stream
from jaxvision.errors import UserError
from jaxvision.losses import Ratio
from jaxvision.metrics import compute
from jaxvision.metrics.panoptic import Segments, panoptic_counts, panoptic_scores
from jaxvision.runs import Prediction
from jaxvision.tasks import configuration, default_config
from jaxvision.tasks.inputs import Inputs
from jaxvision.tasks.panoptic import report
from jaxvision.tasks.panoptic.task import Panoptic

KEY = jax.random.key(0)
NAMES = ("sky", "dog", "grass", "cat")
THINGS = (1, 3)
BOXES = np.float32([[0, 0, 8, 8], [5, 0, 13, 8], [5, 0, 9, 8]])
# What is found: a cat, a dog that it covers in part, one that it covers by more than the half, sky
# above grass.
MASKS = paste(np.ones((3, 4, 4), np.float32), BOXES, (16, 16)).stack()
FOUND = np.full((16, 16), 4)
FOUND[8:] = 5
FOUND[MASKS[1]] = 2
FOUND[MASKS[0]] = 1


class Found(nn.Module):
    """Finds the same in every image, on a grid of 4x4 places."""

    PARTS: ClassVar[tuple[str, ...]] = ("masks", "semantic")

    @nn.compact
    def __call__(self, image, train=False, targets=None):
        one = self.param("one", nn.initializers.ones, ())
        if train:
            counts = jnp.bincount(targets["segmentation"].ravel(), length=4).astype(jnp.float32)
            labels = jnp.where(targets["box_valid"], targets["box_label"] + 1, 0).sum()
            return {
                "pixels": Ratio(one * counts @ jnp.array([1.0, 100, 1e4, 0]), counts.sum()),
                "labels": Ratio(labels.astype(jnp.float32), one),
            }
        stuff = jnp.zeros((4, 4), int).at[2:].set(1)
        found = {
            "boxes": jnp.asarray([*BOXES, BOXES[0]]),
            "scores": jnp.array([0.9, 0.8, 0.7, 0.2]),
            "labels": jnp.array([1, 0, 0, 0]),
            "valid": jnp.array([True, True, True, True]),
            "masks": jnp.ones((4, 4, 4)),
            "semantic": 9.0 * jax.nn.one_hot(stuff, 3),
        }
        return jax.tree.map(lambda x: jnp.stack([x] * len(image)), found)


def batch(rows=2):
    """What is there: another dog than is found, the sky narrower, a crowd of cats; and padding."""
    masks = np.zeros((rows, 3, 16, 16), bool)
    masks[:, 0, :8, :8] = masks[:, 1, :8, 8:14] = masks[:, 2, 12:, 12:] = True
    classes = np.full((rows, 16, 16), 2, np.uint8)
    classes[:, :8], classes[:, :2, 14:] = 0, 255
    classes[:, :8, :8], classes[:, :8, 8:14], classes[:, 12:, 12:] = 3, 1, 3
    boxes = np.float32([[0, 0, 8, 8], [8, 0, 14, 8], [12, 12, 16, 16]])
    ways = np.stack([Geometry.resize((32, 32), (16, 16)).as_array()] * rows)
    return {
        "image": np.zeros((rows, 16, 16, 3), np.uint8),
        "boxes": np.stack([boxes] * rows),
        "box_label": np.array([[3, 1, 3]] * rows),
        "box_valid": np.array([[True] * 3] * rows),
        "box_crowd": np.array([[False, False, True]] * rows),
        "instance_masks": np.packbits(masks, axis=-1),
        "mask_valid": np.array([[True] * 3] * rows),
        "segmentation": classes,
        "geometry": ways,
        "image_size": np.array([[32, 32]] * rows),
        "valid": np.arange(rows) < max(1, rows - 1),
    }


def task(kind=Panoptic, **options):
    inputs = Inputs(num_classes=len(NAMES))
    given = {"things": THINGS, "stuff_area": 10, "inputs": inputs, **options}
    return kind(model=Found(), class_names=NAMES, **given)


VARIABLES = {"params": {"one": jnp.ones(())}}


def scored(one, rows):
    sums, found = jax.jit(one.evaluate)(VARIABLES, rows, KEY)
    kept = {name: np.asarray(value)[np.asarray(rows["valid"])] for name, value in found.items()}
    return {**compute(sums), **one.score(kept)}


def test_scores_are_those_of_the_host():
    scores, given = scored(task(), batch(3)), batch(3)
    there = np.zeros((16, 16), int)
    there[given["segmentation"][0] == 0], there[given["segmentation"][0] == 2] = 4, 5
    for index in (2, 1, 0):
        bits = np.unpackbits(given["instance_masks"][0, index], axis=-1)
        there[bits > 0] = index + 1
    crowd = np.array([False, False, True, False, False])
    truth = Segments(there, np.arange(1, 6), np.array([3, 1, 3, 0, 2]), crowd)
    # Behind three objects the found map counts from four on, of which the last is not sure.
    found = Segments(FOUND, np.array([1, 2, 4, 5]), np.array([3, 1, 0, 2]))
    counts = 2 * panoptic_counts(found, truth, 4)
    expected = panoptic_scores(counts, NAMES, THINGS)
    assert {name: scores[name] for name in expected} == pytest.approx(expected)
    assert scores["pq/cat"] > 0.6
    assert scores["pq/dog"] == pytest.approx(40 / 53)
    assert scores["pq/sky"] == pytest.approx(12 / 14)
    assert not [name for name in scores if name.endswith(("ap/sky", "ap/grass"))]
    assert {"ap/dog", "mask_ap/cat", "ap50", "mask_ap"} <= set(scores)
    assert set(task().scores()) <= set(scores)
    missed = scored(task(overlap=0.0), batch(3))
    assert (missed["pq/cat"], missed["pq/dog"]) == (scores["pq/cat"], 0)


def test_segments_are_numbered_by_objects_and_stuff():
    found = jax.jit(task().predict)(VARIABLES, batch(), KEY)
    expected = np.where(FOUND > 3, FOUND + 1, FOUND)  # four objects
    np.testing.assert_array_equal(found["segments"], [expected] * 2)
    np.testing.assert_array_equal(found["labels"], [[3, 1, 1, 1]] * 2)
    assert "semantic" not in found
    sure = task(threshold=0.1, overlap=0.9, stuff_area=100)
    found = np.asarray(jax.jit(sure.predict)(VARIABLES, batch(), KEY)["segments"][0])
    assert set(np.unique(found)) == {0, 1, 2, 6}  # the third has nothing left, the sky too little


def test_classes_are_learnt_apart():
    one, given = task(), jax.tree.map(jnp.asarray, batch())
    objective, _ = jax.jit(one.loss)(VARIABLES["params"], {}, given, KEY)
    classes = np.asarray(given["segmentation"])
    stuff = [(classes == 0).sum(), (classes == 2).sum(), np.isin(classes, THINGS).sum()]
    assert objective.means["pixels"].total == np.dot(stuff, [1, 100, 1e4])
    assert objective.means["pixels"].weight == classes.size
    assert objective.means["labels"].total == 2 + 1  # of one image: cat is 1, dog 0, no crowd
    del given["segmentation"]
    with pytest.raises(UserError, match="do not say the class of each pixel"):
        one.loss(VARIABLES["params"], {}, given, KEY)
    with pytest.raises(UserError, match="do not say the class of each pixel"):
        jax.eval_shape(one.evaluate, VARIABLES, given, KEY)


def configured(facts, name="panoptic_fpn_resnet50"):
    config = configuration.load("configs/panoptic/shapes.py:smoke")
    config.model.name = name
    return tasks.create(config, facts)


def test_things_and_stuff_are_facts_of_the_data():
    one = configured(Facts(class_names=NAMES, things=THINGS))
    assert (one.model.num_classes, one.model.stuff_classes, one.stuff) == (2, 2, (0, 2))
    with pytest.raises(UserError, match="do not say which of their classes are things"):
        configured(Facts(class_names=NAMES))
    with pytest.raises(UserError, match="All 4 classes of the data are things"):
        configured(Facts(class_names=NAMES, things=(0, 1, 2, 3)))
    with pytest.raises(UserError, match="maskrcnn_resnet50_fpn does not find both masks"):
        configured(Facts(class_names=NAMES, things=THINGS), "maskrcnn_resnet50_fpn")


def test_a_network_is_given_the_class_of_each_pixel():
    network = configured(Facts(class_names=NAMES, things=THINGS)).model
    targets = jax.tree.map(jnp.asarray, batch())
    del targets["segmentation"]

    def losses():
        image = jnp.zeros((2, 32, 32, 3))
        variables = network.init(KEY, image)
        return network.apply(
            variables, image, True, targets, mutable=["batch_stats"], rngs={"dropout": KEY}
        )

    with pytest.raises(UserError, match="needs the targets segmentation, the class of each pixel"):
        jax.eval_shape(losses)


def test_the_background_of_shapes_is_stuff():
    data = configuration.load("configs/panoptic/shapes.py:smoke").data
    source = open_split(data, "test")
    assert source.facts.things == tuple(range(10))
    kinds = Panoptic.annotations
    stream = open_stream(data, "test", seed=0, train=False, annotations=kinds)
    record = stream[0]
    inside = np.unpackbits(record["instance_masks"], axis=-1).any(0)
    np.testing.assert_array_equal(record["segmentation"] == 10, ~inside)
    for mask, label in zip(record["instance_masks"], record["box_label"]):
        assert (record["segmentation"][np.unpackbits(mask, axis=-1) > 0] == label).all()
    data.classes, data.mask_values = ("nothing", *data.classes[:10]), ()
    assert open_split(data, "test").facts.things == tuple(range(1, 11))


# -- what is shown --------------------------------------------------------------------------------


def prediction():
    outputs = jax.jit(task().predict)(VARIABLES, batch(1), KEY)
    outputs = {name: np.asarray(value[0]) for name, value in outputs.items()}
    photograph = np.full((40, 32, 3), 200, np.uint8)  # of whose rows the network sees 32
    geometry = Geometry.window((40, 32), 0, 0, 32, 32, (16, 16))
    return Prediction(photograph, np.zeros((16, 16, 3), np.uint8), outputs, geometry)


def test_segments_are_shown_on_the_photograph(tmp_path):
    one, seen = task(), prediction()
    summary = json.loads(json.dumps(report.summary(one, seen)))
    assert [part.get("score") for part in summary["segments_info"]] == [0.9, 0.8, None, None]
    kinds = [(part["class"], part["isthing"], part["area"]) for part in summary["segments_info"]]
    areas = [4 * (number == FOUND).sum() for number in (1, 2, 4, 5)]
    expected = zip(("cat", "dog", "sky", "grass"), (True, True, False, False), areas)
    assert kinds == list(expected)
    assert summary["classes"] == ["cat", "dog", "dog"]  # all objects, the covered one too
    report.write(one, seen, tmp_path, "photo")
    numbers = segment_numbers(np.asarray(Image.open(tmp_path / "photo_panoptic.png")))
    large = np.repeat(np.repeat(np.where(FOUND > 2, FOUND - 1, FOUND), 2, 0), 2, 1)
    np.testing.assert_array_equal(numbers[:32], large)
    assert not numbers[32:].any()
    drawn = np.asarray(Image.open(tmp_path / "photo.png"))
    assert drawn.shape == (400, 320, 3)
    assert (drawn[330:] == 200).all()  # nothing is drawn where nothing was looked at
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 5
    assert report.cell(one, seen) == "1 cat, 1 dog, grass, sky"
    summary = {**summary, "file": "7.jpg", "picture": "photo.png"}
    facts = Facts(class_names=NAMES, category_ids=(180, 18, 190, 17))
    found = report.files(one, facts, [summary])["panoptic.json"]
    (annotation,) = found["annotations"]
    assert (annotation["image_id"], annotation["file_name"]) == (7, "photo_panoptic.png")
    assert [part["category_id"] for part in annotation["segments_info"]] == [17, 18, 180, 190]
    assert found["categories"][1] == {"id": 18, "name": "dog", "isthing": 1}


def test_a_picture_of_a_batch():
    one, given = task(), batch()
    outputs = {name: np.stack([value] * 2) for name, value in prediction().outputs.items()}
    picture = report.picture(one, given, outputs)
    assert picture.shape == (322, 4 * 322 - 4, 3)
    there = one.segments_of(jax.tree.map(jnp.asarray, given)).numbers
    for row in range(2):
        numbers = report._true(one, {name: value[row] for name, value in given.items()})
        np.testing.assert_array_equal(numbers, there[row])
    del given["segmentation"]
    assert report.picture(one, given, outputs).shape[1] < picture.shape[1]


def test_several_tiles_are_not_joined():
    outputs = prediction().outputs
    joined = task().join_tiles([outputs], np.zeros((1, 2), int), (16, 16), (16, 16))
    assert joined.keys() == outputs.keys()
    with pytest.raises(UserError, match="Segments of several tiles are not joined"):
        task().join_tiles([outputs] * 2, np.zeros((2, 2), int), (16, 16), (16, 32))


# -- real data ------------------------------------------------------------------------------------


class Oracle(Panoptic):
    """Finds what is there."""

    def predict(self, variables: Any, batch: Any, key: Any) -> dict[str, jax.Array]:
        there, objects = self.segments_of(batch), batch["box_valid"] & ~batch["box_crowd"]
        return {
            "boxes": batch["boxes"],
            "labels": batch["box_label"],
            "scores": objects.astype(jnp.float32),
            "valid": objects,
            "masks": jnp.ones((*objects.shape, 4, 4)),
            "segments": there.numbers,
        }


def test_what_is_there_has_full_quality(shared_data):
    data = default_config("panoptic").data
    data.source, data.dir = "panoptic", str(shared_data / "coco128_val")
    data.options = {
        "annotations": "panoptic_segmentation/annotations/panoptic_{split}.json",
        "images": "images/{split}",
    }
    data.train = data.test = "val2017"
    data.eval_transforms = ({"name": "letterbox", "size": 160},)
    data.max_instances = 40
    stream = open_stream(
        data, "val2017", seed=0, train=False, annotations=Panoptic.annotations,
        unused=("keypoints",),
    )  # fmt: skip
    given = stream.batch(range(8))
    facts = stream.source.source.facts
    names = stream.source.class_names
    one = dataclasses.replace(task(Oracle), class_names=names, things=facts.things)
    scores = scored(one, {k: v for k, v in given.items() if k not in ("corrupt", "left_out")})
    for name in ("pq", "sq", "rq", "pq_things", "pq_stuff"):
        assert scores[name] == 1
    seen = {name for name in names if scores[f"pq/{name}"] == 1}
    assert len(seen) > 20
    assert all(np.isnan(scores[f"pq/{name}"]) for name in names if name not in seen)
    assert scores["ap"] == 1
