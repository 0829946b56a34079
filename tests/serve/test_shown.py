"""What predictions show, as plain data and as JSON; samples that a page asks for."""

import base64
import io
import json
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from jaxvision import runs, tasks
from jaxvision.data.facts import Facts
from jaxvision.data.geometry import Geometry
from jaxvision.errors import UserError
from jaxvision.runs import sampling
from jaxvision.serve import Service, encoding
from jaxvision.serve.looking import Attention, looking_of
from jaxvision.tasks import configuration, shown
from jaxvision.tasks.base import image_spec
from jaxvision.tasks.sampling import Control, Sampling
from jaxvision.train.step import init_variables

ROOT = Path(__file__).parents[2]
SIZE = (6, 8)  # of photographs here


@dataclass(frozen=True)
class Found:
    """A prediction as reports take it."""

    outputs: dict[str, np.ndarray]
    geometry: Geometry
    image: np.ndarray
    network_image: np.ndarray


def found(geometry=None, **outputs):
    geometry = geometry or Geometry.identity(SIZE)
    given = {name: np.asarray(value) for name, value in outputs.items()}
    blank = np.zeros((*SIZE, 3), np.uint8)
    return Found(given, geometry, blank, np.zeros((*geometry.size, 3), np.uint8))


def decoded(picture):
    content = base64.b64decode(picture["url"].partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(content)))


def untrained(name, **keys):
    """A run of random weights, without a folder."""
    config = configuration.load(str(ROOT / "configs" / name), keys)
    run = runs.with_weights(config, "none.safetensors")
    shape = run.image_shape
    fresh = jax.jit(lambda: init_variables(run.task, 0, image_spec(shape)))()
    run._variables[tuple(shape)] = {
        k: v for k, v in fresh.items() if k not in run.task.training_collections
    }
    return run


# -- parts ----------------------------------------------------------------------------------------


def test_objects_below_the_threshold_are_there_for_the_slider():
    report = tasks.report("detection")
    task = tasks.TASKS["detection"].task()(model=None, class_names=("cat", "dog"), threshold=0.5)
    double = Geometry.resize(SIZE, (12, 16))
    one = found(
        double,
        boxes=np.array([[2, 2, 8, 8], [0, 0, 4, 4], [0, 0, 16, 12], [1, 1, 2, 2]], np.float32),
        scores=np.array([0.9, 0.3, 0.02, 0.8], np.float32),
        labels=np.array([1, 0, 1, 0]),
        valid=np.array([True, True, True, False]),
    )
    (part,) = report.shown(task, one)
    assert [item.name for item in part.items] == ["dog", "cat"]  # neither padding nor 0.02
    np.testing.assert_allclose(part.items[0].box, [1, 1, 4, 4])
    assert part.threshold == 0.5
    assert report.summary(task, one)["classes"] == ["dog"]  # as it was
    said = encoding.part(part)
    assert said["items"][0]["box"] == [1, 1, 4, 4]
    assert said["items"][0]["score"] == pytest.approx(0.9)
    assert said["items"][0]["colour"] != said["items"][1]["colour"]
    json.dumps(said, allow_nan=False)


def test_segments_lie_on_the_photograph():
    report = tasks.report("segmentation")

    class Task:
        class_names = ("background", "road", "sky")

    labels = np.zeros((12, 16), np.int32)
    labels[:4], labels[8:] = 2, 1
    (part,) = report.shown(Task, found(Geometry.resize(SIZE, (12, 16)), segmentation=labels))
    assert part.image.shape == (*SIZE, 4)
    np.testing.assert_array_equal(
        part.image[..., 3] > 0, np.repeat([1, 1, 0, 0, 1, 1], 8).reshape(SIZE)
    )
    assert {line.name: line.text for line in part.legend} == {
        "background": "33.3%", "road": "33.3%", "sky": "33.3%",
    }  # fmt: skip
    colours = {line.name: line.colour for line in part.legend}
    assert tuple(part.image[0, 0, :3].tolist()) == colours["sky"]
    picture = encoding.part(part)["picture"]
    np.testing.assert_array_equal(decoded(picture), part.image)


def test_key_points_have_scores_limbs_and_sides():
    report = tasks.report("pose")

    class Task:
        keypoint_names = ("nose", "left", "right")
        keypoint_pairs = ((1, 2),)
        skeleton = ((0, 1), (0, 2))
        threshold = 0.4

    points = np.array([[4, 3, 0.9], [2, 5, 0.1], [6, 5, 0.5]], np.float32)
    (part,) = report.shown(Task, found(keypoints=points))
    said = encoding.part(part)
    np.testing.assert_allclose(said["items"][0]["points"], points, rtol=1e-6)
    assert said["items"][0]["score"] is None
    assert [limb[:2] for limb in said["limbs"]] == [[0, 1], [0, 2]]
    assert len({*said["point_colours"]}) == 3
    assert said["threshold"] == 0.4


def test_masks_are_cut_out():
    mask = np.array([[True, False], [True, True]])
    item = shown.Item("cat", (10, 20, 30), 0.5, np.array([1.0, 2, 3, 4]), (mask, (2, 1)))
    empty = shown.Item("dog", (0, 0, 0), 0.5, mask=(np.zeros((0, 0), bool), (0, 0)))
    first, second = encoding.part(shown.Objects([item, empty], 0.3))["items"]
    assert (first["mask"]["left"], first["mask"]["top"]) == (1, 2)
    pixels = decoded(first["mask"])
    np.testing.assert_array_equal(pixels[..., 3] == 255, mask)
    assert pixels[0, 0].tolist() == [10, 20, 30, 255]
    assert second["mask"] is None


def test_what_was_not_seen_is_clear_in_maps():
    crop = Geometry.crop(SIZE, 1, 2, 4, 4)
    one = found(crop)
    values = np.zeros((4, 4), np.float32)
    values[0, 0] = 1
    heat = shown.heat(one, values)
    inside = np.zeros(SIZE, bool)
    inside[1:5, 2:6] = True
    np.testing.assert_array_equal(heat[..., 3] > 0, inside)
    assert heat[1, 2, 3] == 255
    assert heat[4, 5, 3] < heat[1, 2, 3]


def test_pictures_shrink_and_say_their_own_size():
    large = np.zeros((1000, 3200, 3), np.uint8)
    picture = encoding.picture(large)
    assert (picture["width"], picture["height"]) == (3200, 1000)
    assert picture["url"].startswith("data:image/jpeg")
    assert decoded(picture).shape == (500, 1600, 3)
    labels = np.zeros((10, 4000, 4), np.uint8)
    labels[:, ::2] = (200, 100, 50, 255)
    small = decoded(encoding.picture(labels))
    assert small.shape == (4, 1600, 4)
    assert {tuple(one) for one in small.reshape(-1, 4).tolist()} <= {(0,) * 4, (200, 100, 50, 255)}
    grey = np.random.default_rng(0).integers(0, 256, (9, 7, 1), np.uint8)
    np.testing.assert_array_equal(decoded(encoding.picture(grey)), grey[..., 0])


def test_json_has_finite_numbers_alone():
    value = {"a": [float("nan"), 1.0], "b": (float("inf"), {"c": -float("inf")}), "d": "nan"}
    assert encoding.finite(value) == {"a": [None, 1.0], "b": [None, {"c": None}], "d": "nan"}


@pytest.mark.parametrize("name", [name for name, entry in tasks.TASKS.items()])
def test_every_task_that_predicts_shows_something(name):
    report, task = tasks.report(name), tasks.TASKS[name].task()
    assert hasattr(report, "shown") == hasattr(task, "predict")


# -- samples --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def generator():
    return untrained("generation/mnist_vae.py", **{"model.options": {"hidden": 16, "latent": 4}})


def test_images_are_those_of_the_seed_whatever_is_asked_at_a_time(generator):
    service = Service(generator, lambda what: nullcontext())
    about = service.about()
    assert about["predicts"]
    assert about["samples"]["truncation"]["default"] == 1.0
    assert about["name"] == "vae_mlp"
    expected = sampling.sample(generator, 3, seed=5)
    together = service.sample({"seed": 5, "count": 3})["images"]
    for k, one in enumerate(together):
        difference = np.abs(decoded(one).astype(int) - expected[k, ..., 0])
        assert difference.max() <= 1  # batches of other sizes round differently
    later = service.sample({"seed": 5, "count": 2, "first": 1})["images"]
    assert [one["url"] for one in later] == [one["url"] for one in together[1:]]
    mean = service.sample({"truncation": 0, "count": 2})["images"]
    assert mean[0]["url"] == mean[1]["url"]
    assert len(generator.programs) <= 8


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"count": 0}, "count is a whole number from 1 to 64, not 0"),
        ({"count": 10**9}, "count is a whole number"),
        ({"count": True}, "count is a whole number"),
        ({"seed": -1}, "seed is a whole number from 0"),
        ({"seed": "a"}, "seed is a whole number"),
        ({"first": 1.5}, "first is a whole number"),
        ({"truncation": 2}, "truncation is a number from 0 to 1, not 2"),
        ({"truncation": "1"}, "truncation is a number"),
        ({"truncation": float("nan")}, "truncation is a number"),
        ({"guidance": 2}, "Unknown setting 'guidance'"),
        ({"labels": ["3"]}, "Unknown setting 'labels'"),
    ],
    ids=str,
)
def test_what_samples_cannot_have_is_a_sentence(generator, asked, said):
    with pytest.raises(UserError, match=said):
        Service(generator, lambda what: nullcontext()).sample(asked)


def test_diffusion_offers_what_it_understands():
    def of(**keys):
        config = tasks.default_config("diffusion")
        for key, value in {"model.name": "dit_s", **keys}.items():
            configuration.override(config, key, str(value))
        return tasks.create(config, Facts(class_names=("cat", "dog"))).controls()

    with_classes = of(**{"diffusion.conditional": True, "diffusion.guidance": 2.0})
    without = of()
    assert set(with_classes) == {"steps", "sampler", "guidance", "labels"}
    assert set(without) == {"steps", "sampler"}
    assert with_classes["labels"].choices == ("cat", "dog")
    assert with_classes["guidance"].default == 2
    assert with_classes["sampler"].choices == ("ddpm", "ddim", "dpm++")
    assert with_classes["steps"] == Control(50, 1, 1000, 1)
    assert {*with_classes} - {"labels"} <= {*Sampling.__dataclass_fields__}


# -- where it looks -------------------------------------------------------------------------------


def test_transformers_show_their_attention():
    run: Any = untrained("classification/mnist_vit.py", **{"model.options.depth": 1})
    looking = looking_of(run, run.image_shape)
    assert isinstance(looking, Attention)
    (prediction,) = run.predict([np.arange(784, dtype=np.uint8).reshape(28, 28)])
    overlay = looking.overlay(prediction)
    assert overlay.image.shape == (28, 28, 4)
    assert (overlay.image[..., 3] > 0).all()
    assert overlay.grey


def test_reports_without_parts_are_still_told(generator, monkeypatch):
    report = tasks.report("autoencoding")
    monkeypatch.delattr(report, "shown")
    content = io.BytesIO()
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(content, "PNG")
    said = Service(generator, lambda what: nullcontext()).predict(content.getvalue())
    assert said["shown"] == []
    assert said["psnr"] > 0
