"""Every configuration file trains, evaluates and predicts in its reduced form on built-in data."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxvision import config, tasks
from jaxvision.config import check_variant
from jaxvision.errors import UserError
from jaxvision.tasks import configuration
from jaxvision.train import run

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").rglob("*.py"))
# By default one runs of those that train one kind of network in one way: `digits` for classifiers,
# `imagenet_vit` for recipes of transformers, `shapes_unet` and `shapes` for what is dense.
ALIKE = {
    "classification": (
        *("fashion_mnist", "cifar10", "imagenet_resnet50", "imagenet_mobilenet_v2"),
        *("mnist_vit", "imagenet_deit", "imagenet_swin", "capsnet"),
    ),
    "captioning": ("coco", "flickr8k", "folder"),
    "generation": ("mnist_vae",),
    "pose": ("lsp",),
    "instances": ("coco",),
    "detection": ("bccd", "coco", "fastestdet_coco", "folder", "voc"),
    "pretraining": ("imagenet", "shapes"),
    "segmentation": ("ade20k", "camvid", "camvid_espnet", "cityscapes", "folder", "voc"),
}


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(p, marks=pytest.mark.slow) if p.stem in ALIKE.get(p.parent.name, ()) else p
        for p in CONFIGS
    ],
    ids=lambda p: f"{p.parent.name}/{p.stem}",
)
def test_the_reduced_form_runs(path, tmp_path):
    reduced = configuration.load(f"{path}:smoke")
    result = run(reduced, tmp_path / "run")
    kind = tasks.TASKS[reduced.task].task()
    assert math.isfinite(result[kind.main_metric])
    name = getattr(tasks.report(reduced.task), "PICTURE", "predictions")
    picture = np.asarray(Image.open(tmp_path / "run" / f"{name}.png"))
    assert picture.shape[-1] == 3
    assert json.loads((tmp_path / "run" / "facts.json").read_text())["class_names"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_variant_is_valid_and_others_are_refused(path, monkeypatch):
    text = path.read_text()
    listed = []

    def listing(variant, names):
        listed.extend(names)
        return check_variant(variant, names)

    monkeypatch.setattr(config, "check_variant", listing)
    configuration.load(str(path))
    monkeypatch.undo()
    assert "smoke" in listed
    for variant in listed:
        configuration.load(f"{path}:{variant}")
    with pytest.raises(UserError, match=r"Unknown config variant 'smokey'. Did you mean 'smoke'"):
        configuration.load(f"{path}:smokey")
    assert "python train.py --config configs/" in text  # it says how to run it
