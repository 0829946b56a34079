"""Runs whose batches have several shapes."""

import contextlib
import io
import json
import math
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kill_resume import differing, final_state

from jaxvision import runs
from jaxvision.data.builders import drawing
from jaxvision.data.codecs import encode_png
from jaxvision.data.loader import Loader, open_stream
from jaxvision.errors import UserError
from jaxvision.metrics import Mean
from jaxvision.tasks import configuration, default_config
from jaxvision.tasks.detection.task import Detection
from jaxvision.train import run
from jaxvision.train.evaluation import Evaluator
from jaxvision.train.writers import read_metrics

ROOT = Path(__file__).parents[2]
SIZE = 24
STEP = {
    "name": "resize_shortest",
    "size": 16,
    "longest": SIZE,
    "buckets": ((16, SIZE), (SIZE, 16)),
}
CONFIG = """
from jaxvision.tasks import default_config

def get_config(variant=""):
    config = default_config({task!r})
    config.data.source, config.data.dir, config.data.options = {source!r}, {root!r}, {reading!r}
    config.data.train_transforms = config.data.eval_transforms = ({step!r},)
    config.model.name, config.model.options = {name!r}, {options!r}
    config.optimizer.learning_rate = 1e-3
    config.train.batch_size, config.train.log_every, config.train.duration = 4, 1, 10
    config.eval.every, config.checkpoint.every, config.checkpoint.keep = 5, 4, 10
    config.eval.pictures = 3
    config.log.tensorboard = False
    return config
"""
CLASSIFICATION = {
    "task": "classification",
    "source": "folder",
    "reading": {},
    "name": "resnet8_cifar",
    "options": {},
}
DETECTION = {
    "task": "detection",
    "source": "coco",
    "reading": {"annotations": "{split}.json", "images": "."},
    "name": "fcos_resnet50_fpn",
    "options": {
        "encoder": "resnet18",
        "encoder_options": {"depths": (1, 1, 1, 1)},
        "width": 16,
        "groups": 8,
        "depth": 1,
        "candidates": 20,
    },
}


def written(root, folder, **changes):
    """The file of a configuration."""
    path = folder / "config.py"
    path.write_text(CONFIG.format(root=str(root), step=STEP, **{**CLASSIFICATION, **changes}))
    return str(path)


def scene(index):
    """A built-in scene, cut to be wide or tall, and its objects."""
    record = drawing.draw(0, index, 2 * SIZE)
    height, width = (32, 48) if index % 3 else (48, 32)
    boxes = np.clip(record["boxes"], 0, [width, height, width, height])
    kept = (boxes[:, 2:] > boxes[:, :2]).all(1)
    return {
        "image": record["image"][:height, :width],
        "label": record["label"],
        "boxes": boxes[kept],
        "box_label": np.asarray(record["box_label"])[kept],
    }


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """A folder of 27 scenes to train on and 13 to test on, in two classes and as COCO has them."""
    root = tmp_path_factory.mktemp("scenes")
    for split, numbers in (("train", range(27)), ("test", range(27, 40))):
        images, objects = [], []
        for number in numbers:
            record = scene(number)
            path = root / split / f"class{int(record['label']) % 2}" / f"{number:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_png(record["image"]))
            height, width = record["image"].shape[:2]
            name = str(path.relative_to(root))
            images.append({"id": number, "file_name": name, "height": height, "width": width})
            for (x0, y0, x1, y1), label in zip(record["boxes"].tolist(), record["box_label"]):
                box, area = [x0, y0, x1 - x0, y1 - y0], (x1 - x0) * (y1 - y0)
                one = {"image_id": number, "category_id": int(label) + 1, "bbox": box, "area": area}
                objects.append({**one, "iscrowd": 0, "id": len(objects) + 1})
        kinds = [{"id": k + 1, "name": name} for k, name in enumerate(drawing.CLASSES)]
        content = {"images": images, "annotations": objects, "categories": kinds}
        (root / f"{split}.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="module")
def trained(scenes, tmp_path_factory):
    """(folder, what was printed) of a run."""
    folder = tmp_path_factory.mktemp("run")
    with contextlib.redirect_stdout(io.StringIO()) as said:
        run(configuration.load(written(scenes, folder)), folder / "run")
    return folder / "run", said.getvalue()


def test_a_run_compiles_its_step_for_each_shape(trained):
    workdir, said = trained
    assert "27 records of 'train', in batches of 16x24 (18), 24x16 (9), 24x24 (mixed)" in said
    assert "images 24x24x3" in said
    assert "batch 4, 6 steps an epoch" in said
    assert said.count("Compiled the training step") == 3
    assert "Compiled the training step for images of 24x24 in " in said
    assert (workdir / "predictions.png").is_file()
    splits = [record["split"] for record in read_metrics(workdir / "metrics.jsonl")]
    assert splits.count("train") == 10


def test_a_run_that_resumes_ends_with_the_same_bits(scenes, trained, tmp_path, capsys):
    """From step 4, amid the first epoch, as if it had been killed after it."""
    whole, workdir = trained[0], tmp_path / "run"
    shutil.copytree(whole, workdir)
    for path in (workdir / "checkpoints").iterdir():
        if int(path.name) > 4:
            shutil.rmtree(path)
    run(configuration.load(written(scenes, tmp_path)), workdir)
    assert "at step 4 of 10" in capsys.readouterr().out
    assert differing(final_state(whole, 10), final_state(workdir, 10)) == []


def test_a_network_with_parameters_of_one_size_is_refused(scenes, tmp_path):
    config = configuration.load(written(scenes, tmp_path, name="mlp"))
    with pytest.raises(
        UserError, match="mlp has parameters for images of 24x24, and does not take"
    ):
        run(config, tmp_path / "run")


def test_a_stored_run_predicts_and_evaluates(scenes, trained):
    found = runs.open(trained[0], "latest")
    metrics, _ = found.evaluate()
    stored = [r for r in read_metrics(trained[0] / "metrics.jsonl") if r["split"] == "test"][-1]
    assert metrics["accuracy"] == stored["accuracy"]
    files = sorted((scenes / "test").rglob("*.png"))
    images = {one.network_image.shape[:2] for one in found.predict(files)}
    assert images == set(STEP["buckets"])  # each in its own
    assert not found.one_size


# -- evaluation -----------------------------------------------------------------------------------


class SeesPixels(Detection):
    """Finds what is there, a little beside it; the sum of the pixels, which padding leaves, says
    how much, how surely, and as what."""

    def predict(self, variables, batch, key):
        number = batch["image"].astype(jnp.int32).sum((1, 2, 3))[:, None]
        draw = (number * (7 + jnp.arange(batch["boxes"].shape[1])) % 101) / 101
        beside = batch["boxes"] + jnp.where(draw < 0.5, 0.5, 3.0)[..., None]
        return {
            "boxes": beside.clip(0, SIZE),
            "scores": jnp.round(draw, 1),  # many are equal
            "labels": jnp.where(draw < 0.8, batch["box_label"], 0),
            "valid": batch["box_valid"],
        }

    def evaluate(self, variables, batch, key):
        _, rows = super().evaluate(variables, batch, key)
        return {"objects": Mean.of(batch["box_valid"].sum(1), batch["valid"])}, rows


def evaluated(root, step, grouped):
    data = default_config("detection").data
    data.source, data.dir = "coco", str(root)
    data.options = {"annotations": "{split}.json", "images": "."}
    data.eval_transforms = (step,)
    stream = open_stream(data, "test", seed=0, train=False, annotations=("instances",))
    stream = stream.grouped(4) if grouped else stream
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    loader = Loader(stream, 4, device)
    task = SeesPixels(model=None, inputs=None, class_names=stream.source.class_names)
    batches = list(loader.batches())
    result, _ = Evaluator(task, 0)({}, iter(batches))
    return result, {batch["image"].shape[1:3] for batch in batches}, len(batches)


def test_metrics_are_those_of_one_large_square(scenes):
    square = {key: value for key, value in STEP.items() if key != "buckets"}
    expected, shapes, count = evaluated(scenes, {**square, "shape": SIZE}, grouped=False)
    assert (shapes, count) == ({(SIZE, SIZE)}, 4)
    found, shapes, count = evaluated(scenes, STEP, grouped=True)
    assert (shapes, count) == ({(16, SIZE), (SIZE, 16)}, 4)
    np.testing.assert_equal(found, expected)
    assert 0 < expected["ap"] < expected["ap50"] < 1


# -- slow -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("changes", [CLASSIFICATION, DETECTION])
def test_a_run_that_is_killed_ends_with_the_same_bits(scenes, tmp_path, changes):
    command = [sys.executable, str(ROOT / "tests" / "kill_resume.py"), "--kills", "3"]
    command += ["--signal", "KILL", "TERM", "KILL", "--steps", "300"]
    command += ["--config", written(scenes, tmp_path, **changes)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 arrays differ" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("changes", [CLASSIFICATION, DETECTION])
def test_two_processes_follow_one(scenes, tmp_path, changes):
    flags = [f"--config={written(scenes, tmp_path, **changes)}", "--config.eval.pictures=0"]
    flags.append("--config.optimizer.learning_rate=1e-5")  # rounding grows with the rate

    def start(name, *more):
        command = [sys.executable, "train.py", *flags, f"--workdir={tmp_path / name}", *more]
        out = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(command, cwd=ROOT, text=True, **out)

    def finish(*processes):
        outputs = [process.communicate(timeout=600)[0] for process in processes]
        assert not any(process.returncode for process in processes), outputs

    finish(start("one"))
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    several = [f"--coordinator=localhost:{port}", "--num-processes=2"]
    finish(*(start("two", *several, f"--process-id={i}") for i in range(2)))
    one, two = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("one", "two"))
    assert len(one) == len(two) == 13
    for ours, theirs in zip(two, one, strict=True):
        assert ours.keys() == theirs.keys()
        for key in ours.keys() - {"images_per_second", "split"}:
            both = [math.nan if side[key] is None else side[key] for side in (ours, theirs)]
            assert both[0] == pytest.approx(both[1], rel=5e-3, abs=1e-3, nan_ok=True), key
