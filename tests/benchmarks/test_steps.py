"""The benchmarks of training steps and inference, on a small network."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize(
    ("script", "options"),
    [
        pytest.param(
            *("training_step", ["--sides", "ours", "flax", "--batch", "4"]),
            marks=pytest.mark.slow,
        ),
        ("inference", ["--batches", "1"]),
    ],
)
def test_a_small_network_is_measured(script, options, tmp_path, monkeypatch):
    result = tmp_path / "result.json"
    command = [
        sys.executable,
        f"{script}.py",
        "--only",
        "resnet20_cifar",
        "--repeat",
        "2",
        *options,
    ]
    subprocess.run(
        [*command, "--seconds", "0.05", "--json", str(result)], cwd=BENCHMARKS, check=True
    )
    found = json.loads(result.read_text())
    (row,) = found["rows"]
    for side in row["sides"].values():
        assert "missing" in side or (side["seconds"] > 0 and side["memory"] > 1e8)
    assert (
        row["sides"]["ours"]["flops_per_image"]
        == (3 if script == "training_step" else 1) * 2 * 41_218_688
    )
    if script == "training_step":
        assert row["sides"]["flax"]["deviation"] < 1e-3
    monkeypatch.syspath_prepend(BENCHMARKS)
    lines = importlib.import_module(script).markdown(found).splitlines()
    assert lines[2].startswith("| ResNet-20 for CIFAR, ")
    assert lines[0].count("|") == lines[2].count("|")


def test_other_numbers_are_refused(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    agree = importlib.import_module("training_step").agree
    sides = {"ours": {"numbers": [1.0, 0.5]}, "eager": {"numbers": [1.0, 0.6]}}
    with pytest.raises(RuntimeError, match="eager and ours differ"):
        agree({"network": "x", "sides": sides}, 1e-2)


def test_steps_need_no_loader_and_no_configuration():
    """They run on machines that lack these packages."""
    program = (
        "import sys, jax, steps; from networks import NETWORKS; from pathlib import Path\n"
        "import jaxvision.train.step, jaxvision.train.compilation, plain_flax\n"
        "steps.jax_task(NETWORKS['unet'], 'bfloat16')\n"
        "wanted = {'grain', 'tensorflow_datasets', 'ml_collections', 'orbax', 'simplejpeg'}\n"
        "sys.exit(', '.join(wanted & set(sys.modules)) or None)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=BENCHMARKS, check=True)
