"""What a training would take, told before it begins."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from jaxvision import cli
from jaxvision.errors import UserError
from jaxvision.tasks import configuration
from jaxvision.train.rehearsal import rehearse

ROOT = Path(__file__).parents[2]
DIGITS = str(ROOT / "configs" / "classification" / "digits.py")
MLP = {"model.name": "mlp", "model.options.hidden": "(32,)", "train.batch_size": "64"}
PARAMETERS = 64 * 32 + 32 + 32 * 10 + 10


def test_a_step_of_one_device_exchanges_nothing():
    found = rehearse(
        configuration.load(DIGITS, {**MLP, "optimizer.ema": "0.0", "train.duration": "9 epochs"})
    )
    assert found.batch == (64, 64, 64)
    assert found.exchanged == {}
    assert found.steps == (22, 9 * 22)
    # Parameters, two moments of each, and counters.
    assert 0 <= found.state - 3 * 4 * PARAMETERS < 200
    # Beside the state there are images, labels, validity and which records they are.
    assert 64 * (8 * 8 + 4 + 1) <= found.arguments - found.state < 64 * 100
    # Products with both layers, three times, two operations each.
    assert found.flops >= 2 * 3 * 32 * (64 + 10) - 2 * 64 * 32


def test_devices_are_played_and_nothing_is_written(tmp_path):
    command = [sys.executable, str(ROOT / "train.py"), "--config", DIGITS, "--dry-run"]
    command += ["--devices", "8", *(f"--config.{key}={value}" for key, value in MLP.items())]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "8 cpu devices: data 8 x fsdp 1, 1 process" in done.stdout
    assert "batch: 64 images, 64 a host, 8 a device" in done.stdout
    exchanged = re.search(r"exchanged in a step, a device: (\S+) MiB \(all-reduce", done.stdout)
    assert float(exchanged[1]) == pytest.approx(4 * PARAMETERS / 2**20, abs=0.06)
    assert done.stdout.endswith("Nothing was trained or written.\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        "captioning/shapes.py:smoke",
        "detection/shapes.py:smoke",
        "generation/digits_dcgan.py:smoke",  # latents are drawn in the step
        "generation/ffhq.py:smoke",
        "generation/fashion_mnist.py:ddpm_smoke",
        "generation/fashion_mnist.py:vqvae_smoke",
        "pretraining/digits_dino.py:smoke",  # several views of an image
        "pretraining/shapes.py:mocov3",
        "pretraining/shapes.py:mae",
        "segmentation/shapes_unet.py:smoke",
    ],
)
def test_devices_share_the_work(config, tmp_path):
    """An image costs as many operations on eight devices as on one, but for what each repeats."""
    path = ROOT / "configs" / config
    command = [sys.executable, str(ROOT / "train.py"), "--config", str(path), "--dry-run"]
    command += ["--config.train.batch_size=16"]
    flops = []
    for devices in ("1", "8"):
        done = subprocess.run(
            [*command, "--devices", devices],
            capture_output=True, text=True, cwd=tmp_path, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        flops.append(float(re.search(r"(\S+) GFLOP an image", done.stdout)[1]))
    assert flops[1] < 1.25 * flops[0]


def test_devices_are_for_a_rehearsal_alone():
    with pytest.raises(UserError, match="--devices is how many a --dry-run is for"):
        cli.run(["train", "--config", DIGITS, "--devices", "8"])
