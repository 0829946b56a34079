"""A network that is given proposals, from training to prediction."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision import runs, tasks
from jaxvision.data.facts import Facts
from jaxvision.errors import UserError
from jaxvision.runs import exporting
from jaxvision.tasks import configuration
from jaxvision.tasks.base import image_spec
from jaxvision.train import run

SHAPES = Path(__file__).parents[2] / "configs" / "detection" / "shapes.py"
SMALL = {
    "model.options": {
        "encoder": "resnet18",
        "encoder_options": {"depths": (1,)},
        "strides": (4,),
        "pool_size": 3,
        "head_hidden": (8, 8),
        "score_threshold": 0.0,
    },
    "data.options": {"size": 64, "train": 8, "test": 4},
    "data.max_proposals": 12,
    "train.batch_size": 4,
    "train.duration": 2,
    "schedule.warmup": 0,
    "eval.batch_size": 4,
    "eval.every": 2,
    "log.tensorboard": False,
}


def small(folder, **more):
    config = configuration.load(f"{SHAPES}:fastrcnn", {**SMALL, **more})
    for key in ("train_transforms", "eval_transforms"):
        if config.data[key]:
            search = {**config.data[key][0], "cache": str(folder / "cache")}
            config.data[key] = (search,)
    return config


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("proposals")
    run(small(folder), folder / "run")
    assert len(list((folder / "cache").rglob("*.npy"))) == 8 + 4
    return runs.open(folder / "run")


def test_predictions_are_of_the_proposals_of_each_image(trained):
    """Images in one batch are found as alone, and as by hand."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 40, (64, 64, 3), dtype=np.uint8) for _ in range(2)]
    images[1][8:40, 20:50] = 200
    both = trained.predict(images)
    for image, found in zip(images, both):
        (alone,) = trained.predict([image])
        np.testing.assert_array_equal(alone.outputs["valid"], found.outputs["valid"])
        np.testing.assert_allclose(alone.outputs["boxes"], found.outputs["boxes"], atol=1e-3)
    boxes = trained.prepare({"image": images[1]}, rng)["proposals"]
    given = np.zeros((1, 12, 4), np.float32)
    given[0, : len(boxes)] = boxes[:12]
    valid = (given[..., 2:] > given[..., :2]).all(-1)
    assert valid.sum() > 3
    rows = {"image": images[1][None], "proposals": given, "proposal_valid": valid}
    batch = {key: jnp.asarray(row) for key, row in rows.items()}
    expected = jax.jit(trained.task.predict)(trained.variables, batch, jax.random.key(0))
    np.testing.assert_array_equal(both[1].outputs["valid"], expected["valid"][0])
    np.testing.assert_allclose(both[1].outputs["boxes"], expected["boxes"][0], atol=1e-3)


@pytest.mark.parametrize("variant", ["fastrcnn", "sppnet", "rfcn", "overfeat", "sliding_window"])
def test_reduced_networks_fit_their_scenes(variant):
    config = configuration.load(f"{SHAPES}:{variant}")
    task = tasks.create(config, Facts(("a", "b", "c")))
    fresh = jax.eval_shape(lambda: task.init(jax.random.key(0), image_spec((96, 96, 3))))
    for pattern in config.optimizer.freeze:
        assert any(name.startswith(pattern) for name in fresh["params"])
    assert bool(task.needs) == bool(config.data.train_transforms)


def test_a_program_takes_images_alone(trained):
    with pytest.raises(UserError, match="predicts from proposals and proposal_valid beside the im"):
        exporting.export(trained)


def test_data_without_proposals_end_the_run(tmp_path):
    more = {"data.train_transforms": (), "data.eval_transforms": ()}
    with pytest.raises(UserError, match=r"FastRCNN needs proposals .* 'selective_search'"):
        run(small(tmp_path, **more), tmp_path / "run")


def test_prediction_without_the_transform_is_refused(trained):
    without = {"data.eval_transforms": ()}
    with pytest.raises(UserError, match=r"FastRCNN needs proposals .* 'selective_search'"):
        runs.open(trained.folder, overrides=without).predict([np.zeros((64, 64, 3), np.uint8)])
