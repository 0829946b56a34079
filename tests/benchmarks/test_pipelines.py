"""The benchmarks of the input pipeline, the first step and checkpoints, on the smallest work."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(name: str, path: Path, *arguments: str) -> dict[str, Any]:
    """The result that a benchmark saves."""
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *arguments, "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(path.read_text())
    assert result["benchmark"] == name
    assert result["machine"]["cores"] >= 1
    return result


@pytest.fixture
def markdown(monkeypatch):
    """The section that a benchmark makes of its result."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return lambda result: importlib.import_module(result["benchmark"]).markdown(result)


@pytest.mark.slow
def test_loader_measures_files_and_records_and_names_what_is_missing(tmp_path, markdown):
    measured = ("jaxvision Loader, folder", "jaxvision Loader, ArrayRecord", "no loader")
    (tmp_path / "images" / "train" / "photo").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 40, 50, 3), np.uint8)
    for index, image in enumerate(pixels):  # one batch
        Image.fromarray(image).save(tmp_path / "images" / "train" / "photo" / f"{index:02}.jpg")
    arguments = ("--rounds", "1", "--seconds", "0.2", "--images", str(tmp_path / "images"))
    arguments += ("--pipelines", *measured, "tf.data")
    result = run("loader", tmp_path / "l.json", *arguments, "--tf-python", sys.executable)
    rows = {row["pipeline"]: row for row in result["rows"]}
    for name in measured:
        assert rows[name]["wall"] > 0
        assert rows[name]["cpu"] > 0
    assert rows["no loader"]["cpu_ratio"] == pytest.approx(
        rows[measured[0]]["cpu"] / rows["no loader"]["cpu"]
    )
    assert "Grain by hand" not in rows
    assert "wall" not in rows["tf.data"]
    assert "not measured" in markdown(result)


@pytest.mark.slow
def test_first_step_is_faster_from_the_cache(tmp_path, markdown):
    small = ("--networks", "ResNet-8 for CIFAR", "--size", "32", "--cold", "1", "--cached", "1")
    result = run("first_step", tmp_path / "f.json", *small)
    cold, cached = result["rows"]
    assert (cold["start"], cached["start"]) == ("cold", "cached")
    for row in (cold, cached):
        parts = [row[k] for k in ("imports", "preparing", "compiling", "first step")]
        assert min(parts) > 0
        assert sum(parts) == pytest.approx(row["total"])
    assert cached["compiling"] < cold["compiling"]
    assert "ResNet-8" in markdown(result)


@pytest.mark.slow
def test_checkpoint_says_what_a_save_costs(tmp_path, markdown):
    small = ("--model", "resnet8_cifar", "--size", "32", "--rounds", "1", "--dir", str(tmp_path))
    result = run("checkpoint", tmp_path / "c.json", *small)
    ours, orbax, torch = result["rows"]
    for row in (ours, orbax):
        assert 0 < row["blocked"] <= row["on_disk"]
        assert row["bytes"] > 3 * 4 * 70_000  # parameters and two moments
    assert ours["meanwhile"] >= 1
    assert "blocked" not in torch
    assert [p.name for p in tmp_path.iterdir()] == ["c.json"]
    assert "not measured" in markdown(result)
