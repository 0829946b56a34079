"""One run starts from another's, checkpoints of the first format go on, runs are opened."""

import json
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from jaxvision import runs, tasks
from jaxvision.errors import UserError
from jaxvision.tasks import configuration
from jaxvision.train import run
from jaxvision.train.checkpoint import Checkpoints
from jaxvision.train.writers import read_metrics

VIT = {"patch_size": 4, "width": 16, "depth": 1, "num_heads": 2}
QUIET = {
    "eval.pictures": 0, "log.tensorboard": False, "data.channels": 1, "train.batch_size": 32,
    "data.train": "train[:128]", "data.test": "test[:64]", "train.duration": 4,
    "eval.every": "never", "checkpoint.every": "never",
}  # fmt: skip


def configured(task, **changes):
    config = tasks.default_config(task)
    for key, value in {**QUIET, **changes}.items():
        configuration.set_key(config, key.replace("__", "."), value)
    return config


@pytest.fixture(scope="module")
def pretrained_run(tmp_path_factory):
    """DINO on digits of 8x8 pixels, two augmented copies of each."""
    config = configured(
        "pretraining",
        model__name="vit_tiny_patch16_224",
        model__options=VIT,
        data__augment=({"name": "random_affine", "degrees": 10.0},),
        pretraining__prototypes=8,
        pretraining__hidden=8,
        pretraining__bottleneck=4,
    )
    workdir = tmp_path_factory.mktemp("starting") / "dino"
    return workdir, run(config, workdir)


def test_self_supervised_learning_without_views(pretrained_run):
    workdir, result = pretrained_run
    assert 0 <= result["knn_accuracy"] <= 1
    opened = runs.open(workdir)
    again, _ = opened.evaluate()
    assert again["knn_accuracy"] == result["knn_accuracy"]
    (found,) = opened.predict([np.zeros((8, 8, 1), np.uint8)])
    assert found.outputs["features"].shape == (16,)


@pytest.mark.parametrize(
    ("part", "tree"), [("#teacher", "teacher"), ("#backbone", "params"), ("", "teacher")]
)
def test_a_classifier_starts_from_a_part_of_a_run(pretrained_run, tmp_path, part, tree):
    workdir, _ = pretrained_run
    config = configured(
        "classification",
        model__name="vit_tiny_patch16_224",
        model__options=VIT,
        model__weights=f"run:{workdir}{part}",
        optimizer__freeze=("^blocks_0/",),
    )
    run(config, tmp_path / "run")
    ours = runs.open(tmp_path / "run").variables["params"]
    theirs = runs.open(workdir).variables[tree]["backbone"]
    jax.tree.map(np.testing.assert_array_equal, ours["blocks_0"], dict(theirs["blocks_0"]))
    assert "head" in ours
    assert "head" not in theirs


def test_parts_that_are_missing_are_named(pretrained_run, tmp_path):
    workdir, _ = pretrained_run
    for weights, message in (
        (f"run:{workdir}#techer", "Did you mean 'teacher'"),
        (f"run:{tmp_path}", "No run in"),
    ):
        config = configured(
            "classification",
            model__name="vit_tiny_patch16_224",
            model__options=VIT,
            model__weights=weights,
        )
        with pytest.raises(UserError, match=message):
            run(config, tmp_path / "run")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    config = configured(
        "classification",
        model__name="mlp",
        model__options={"hidden": (8,)},
        train__log_every=1,
        optimizer__ema=0.5,
        checkpoint__every=2,
    )
    workdir = tmp_path_factory.mktemp("format") / "run"
    run(config, workdir)
    return config, workdir


def as_format(workdir, number):
    """Writes the checkpoint of step 2 as it was written before.

    In the first format optimisers had no groups; in the second averages were of parameters alone.
    """
    folder = workdir / "checkpoints"
    shutil.rmtree(folder / "4")
    checkpoints = Checkpoints(folder)
    meta = checkpoints.meta(2)
    checkpoints.close()
    reader = ocp.PyTreeCheckpointer()
    state = reader.restore(folder / "2" / "state")
    reader.close()
    state["ema"] = state["ema"]["params"]
    shapes = {p.replace(".ema['params']", ".ema"): s for p, s in meta["shapes"].items()}
    meta |= {"format": number}
    del meta["run"]
    (workdir / "run.json").unlink()
    if number == 1:
        state["opt_state"] = state["opt_state"]["main"]
        shapes = {p.replace(".opt_state['main']", ".opt_state"): s for p, s in shapes.items()}
        meta |= {"image_shape": meta.pop("spec")["image"][0][1:]}
        del meta["format"], meta["facts"]
    meta["shapes"] = shapes
    shutil.rmtree(folder / "2")
    manager = ocp.CheckpointManager(folder, item_names=("state", "meta"))
    manager.save(
        2,
        args=ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta)),
    )
    manager.wait_until_finished()
    manager.close()
    if number > 1:
        return
    (workdir / "facts.json").unlink()
    stored = json.loads((workdir / "config.json").read_text())
    own = stored.pop("classification")
    distillation = own.pop("distillation")
    stored |= {"loss": {"name": own.pop("loss"), **own}, "distillation": distillation}
    stored["data"]["classes"] = [str(digit) for digit in range(10)]
    (workdir / "config.json").write_text(json.dumps(stored))


@pytest.mark.parametrize("number", [1, 2])
def test_a_run_of_an_older_format_goes_on_with_the_same_bits(classifier, tmp_path, number):
    config, workdir = classifier
    shutil.copytree(workdir, tmp_path / "old")
    as_format(tmp_path / "old", number)
    opened = runs.open(tmp_path / "old", "2")
    assert opened.facts.class_names == tuple("0123456789")
    expected = runs.open(workdir, "2").variables
    jax.tree.map(np.testing.assert_array_equal, opened.variables, expected)
    run(config, tmp_path / "old")
    for name in ("params", "ema", "opt_state", "model_state", "step"):
        ends = []
        for folder in (workdir, tmp_path / "old"):
            with ocp.PyTreeCheckpointer() as reader:
                ends.append(reader.restore(folder / "checkpoints" / "4" / "state")[name])
        jax.tree.map(np.testing.assert_array_equal, *ends)


def test_a_checkpoint_of_a_newer_format_is_refused(classifier, tmp_path, monkeypatch):
    config, workdir = classifier
    shutil.copytree(workdir, tmp_path / "new")
    monkeypatch.setattr("jaxvision.train.checkpoint.FORMAT", 2)
    with pytest.raises(UserError, match=r"of a newer jaxvision \(format 3\)"):
        run(config, tmp_path / "new")


def test_data_with_other_classes_are_refused(classifier, tmp_path):
    config, workdir = classifier
    shutil.copytree(workdir, tmp_path / "run")
    facts = json.loads((tmp_path / "run" / "facts.json").read_text())
    facts["class_names"] = ["zero", *facts["class_names"][1:]]
    (tmp_path / "run" / "facts.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match=r"classes 0, 1, .* begun they had zero, 1"):
        run(config, tmp_path / "run")
    (tmp_path / "run" / "facts.json").write_text("{")
    with pytest.raises(UserError, match="facts of the data are damaged"):
        runs.open(tmp_path / "run")


def test_a_refused_run_leaves_the_folder_as_it_was(classifier):
    config, workdir = classifier
    before = (workdir / "config.json").read_text()
    other = config.copy_and_resolve_references()
    other.model.options = {"hidden": (9,)}
    other.train.allow_changed_config = True
    with pytest.raises(UserError, match="another model"):
        run(other, workdir)
    assert (workdir / "config.json").read_text() == before


def test_only_what_is_declared_fatal_ends_a_run(tmp_path):
    """Batches that are all void: no pixel counts, and the accuracy of none is undefined."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for folder, mode in ((split, "RGB"), (f"{split}annot", "L")):
            (tmp_path / "data" / folder).mkdir(parents=True)
            for index in range(4):
                size = (8, 8, 3) if mode == "RGB" else (8, 8)
                pixels = rng.integers(0, 2, size, np.uint8)
                if split == "train" and index:
                    pixels = np.full(size, 255, np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data" / folder / f"{index}.png")
    config = tasks.default_config("segmentation")
    config.data.source, config.data.dir = "masks", str(tmp_path / "data")
    config.data.classes = ("a", "b")
    config.model.name, config.model.options = "unet", {"width": 2, "depth": 1}
    config.train.batch_size, config.train.duration, config.train.log_every = 1, 4, 1
    config.eval.pictures, config.log.tensorboard = 0, False
    result = run(config, tmp_path / "run")
    assert np.isfinite(result["loss"])
    found = read_metrics(tmp_path / "run" / "metrics.jsonl")
    void = [r for r in found if r["split"] == "train" and r["pixel_accuracy"] is None]
    assert [r["loss"] for r in void] == [0, 0, 0]
    config.optimizer.name, config.optimizer.learning_rate = "sgd", 1e38
    config.segmentation.l2 = 1.0
    config.train.duration = 9
    with pytest.raises(UserError, match=r"(gradient_norm|loss) is (inf|nan) at step"):
        run(config, tmp_path / "nan")
