"""`jaxvision rcnn`: all stages on a few scenes, and what is refused between them."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from jaxvision import cli
from jaxvision.commands.rcnn import table
from jaxvision.errors import UserError

ROOT = Path(__file__).parents[2]
SHAPES = str(ROOT / "configs" / "detection" / "shapes.py")
SMALL = (
    "--config.data.options={'size': 64, 'train': 10, 'test': 4}",
    "--config.model.options={'encoder': 'resnet18', 'encoder_options': {'depths': (1,)}}",
    "--config.schedule.warmup=1",
    "--config.detection.voc=('2007',)",
)


def rcnn(stage, folder, *options, config=SMALL):
    cli.run(
        ["rcnn", stage, "--config", SHAPES, "--workdir", str(folder), *map(str, options), *config]
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with all stages of R-CNN and of SPP-net."""
    folder = tmp_path_factory.mktemp("rcnn") / "run"
    rcnn("proposals", folder, "--train", 8, "--limit", 30)
    rcnn("finetune", folder, "--crop", 24, "--padding", 2, "--steps", 2)
    for pool in ((), ("--pool", "spp", "--side", 96)):
        rcnn("features", folder, "--feature", "4", *pool)
    for pool in ("crop", "spp"):
        rcnn("svm", folder, "--pool", pool, "--rounds", 1)
        rcnn("boxes", folder, "--pool", pool)
    return folder


def test_stages_hold_what_they_say(made):
    assert {path.name for path in made.iterdir()} >= {
        f"{stage}.{end}"
        for stage in ("proposals", "network", "features_crop", "features_spp", "svm_crop",
                      "svm_spp", "boxes_crop", "boxes_spp")
        for end in ("npz", "json")
    }  # fmt: skip
    assert not list(made.glob("*.tmp"))
    proposals, features = np.load(made / "proposals.npz"), np.load(made / "features_crop.npz")
    assert len(proposals["train/proposals_ends"]) == 8
    assert len(proposals["test/proposals_ends"]) == 4
    windows = len(proposals["train/proposals"]) + len(proposals["train/object_boxes"])
    assert features["train/features"].shape == (windows, 3 * 3 * 64)
    assert len(features["test/features"]) == len(proposals["test/proposals"])
    maps = np.load(made / "features_spp.npz")
    assert maps["train/map7"].shape == maps["test/map3"].shape == (24, 24, 64)
    assert np.load(made / "svm_spp.npz")["weight"].shape == (50 * 64, 10)
    assert np.load(made / "boxes_crop.npz")["weight"].shape == (10, 9 * 64, 4)


@pytest.mark.parametrize("pool", ["crop", "spp"])
def test_an_evaluation_has_precision_and_seconds(made, pool, tmp_path, capsys):
    capsys.readouterr()
    rcnn("evaluate", made, "--pool", pool, "--json", tmp_path / "found.json")
    out = capsys.readouterr().out
    assert re.search(r"windows as proposed: ap \d\.\d{3}, ap50 \d", out)
    assert re.search(r"windows moved: ap \d.*map_voc2007", out)
    assert "R-CNN with VGG16 on a K40: 47 s" in out
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["pool"] == pool
    assert list(found["seconds"]) == ["proposals", "features", "scores and suppression"]
    assert all(value > 0 for value in found["seconds"].values())
    assert 0 <= found["scores"]["boxes"]["ap"] <= found["scores"]["boxes"]["ap50"] <= 1


def test_what_is_done_is_not_done_again(made, capsys):
    before = (made / "svm_crop.npz").stat().st_mtime_ns
    rcnn("svm", made, "--rounds", 1)
    assert "The SVMs had been made. SVMs on" in capsys.readouterr().out
    rcnn("features", made, "--feature", "4")
    assert "The features had been made." in capsys.readouterr().out
    assert (made / "svm_crop.npz").stat().st_mtime_ns == before


def test_the_same_seed_makes_the_same(made, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(made, folder)
    rcnn("proposals", folder, "--train", 8, "--limit", 30, "--again")
    before, now = (np.load(f / "proposals.npz") for f in (made, folder))
    for name in before.files:
        np.testing.assert_array_equal(before[name], now[name])
    rcnn("svm", folder, "--rounds", 1)  # still of the same features


def test_an_earlier_stage_that_is_missing_is_named(made, tmp_path):
    folder = tmp_path / "run"
    for stage in ("finetune", "features", "svm", "boxes", "evaluate"):
        with pytest.raises(UserError, match=r"has no proposals yet. First: `jaxvision rcnn prop"):
            rcnn(stage, folder)
    for end in ("npz", "json"):
        shutil.copy(made / f"proposals.{end}", folder)
    for stage in ("svm", "boxes"):
        with pytest.raises(
            UserError, match=r"no features_spp yet. First: `.*features.*--pool spp`"
        ):
            rcnn(stage, folder, "--pool", "spp")
    with pytest.raises(UserError, match=r"has no svm_crop yet. First: `jaxvision rcnn svm"):
        rcnn("evaluate", folder)


def test_other_data_or_options_are_refused(made):
    other = ("--config.data.options={'size': 64, 'train': 9, 'test': 4}", *SMALL[1:])
    for stage in ("proposals", "features", "svm", "evaluate"):
        with pytest.raises(UserError, match=r"stages of other data: data.options was"):
            rcnn(stage, made, config=other)
    with pytest.raises(UserError, match=r"proposals .* were made with limit=30, not 40"):
        rcnn("proposals", made, "--train", 8, "--limit", 40)
    with pytest.raises(UserError, match=r"fine-tuned with --crop 24; leave --crop out"):
        rcnn("features", made, "--crop", 32)
    with pytest.raises(UserError, match=r"were made with feature='4', not 'last'"):
        rcnn("features", made)


def test_what_depends_on_what_was_made_anew_is_refused(made, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(made, folder)
    rcnn("proposals", folder, "--train", 8, "--limit", 20, "--again")
    with pytest.raises(UserError, match=r"features_crop .* were made of other proposals"):
        rcnn("svm", folder, "--rounds", 1)
    with pytest.raises(UserError, match=r"network .* were made of other proposals"):
        rcnn("features", folder)


@pytest.mark.parametrize(
    ("stage", "options", "message"),
    [
        ("svm", ("--pool", "crob"), "Did you mean 'crop'"),
        ("svm", ("--c", "0"), "--c=0.0 must be positive"),
        ("proposals", ("--limit", "0"), "--limit=0 must be at least 1"),
        ("proposals", ("--mode", "fats"), "Did you mean 'fast'"),
        ("features", ("--feature", "16"), "Unknown feature '16'"),
        ("features", ("--pool", "spp", "--feature", "pooled"), "wants a map"),
        ("features", ("--network", "fcos_resnet50_fpn"), "Unknown classifier"),
    ],
)
def test_bad_options(stage, options, message, made, tmp_path):
    folder = tmp_path / "run"
    if stage == "features":
        folder.mkdir()
        for end in ("npz", "json"):
            shutil.copy(made / f"proposals.{end}", folder)
    with pytest.raises(UserError, match=message):
        rcnn(stage, folder, *options)


def test_only_detection_is_evaluated(tmp_path):
    digits = str(ROOT / "configs" / "classification" / "digits.py")
    with pytest.raises(UserError, match="R-CNN is not for classification; it is for detection"):
        cli.run(["rcnn", "svm", "--config", digits, "--workdir", str(tmp_path)])


def test_the_table_adds_up():
    lines = table({"windows": {"ap": 0.5, "ap/a": 0.25, "ar_1": 1.0}}, {"a": 0.25, "b": 1.5})
    assert lines[0] == "windows as proposed: ap 0.500, ap/a 0.250"
    assert lines[-1].split()[:2] == ["together", "1.750"]
