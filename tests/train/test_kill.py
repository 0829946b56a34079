"""Killed at any moment and started again, a run ends with the same bits."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_a_tortured_run_ends_with_the_bits_of_one_left_alone():
    """Killed twice, the second time at a checkpoint being written, and asked to end in between."""
    command = [sys.executable, str(ROOT / "tests" / "kill_resume.py")]
    command += ["--signal", "KILL", "TERM", "KILL", "--kills", "3", "--steps", "300", "--seed", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 arrays differ" in done.stdout
    assert "3 kills" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("how", ["KILL", "TERM"])
def test_twenty_kills(how):
    command = [sys.executable, str(ROOT / "tests" / "kill_resume.py"), "--signal", how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        "generation/digits_dcgan.py:smoke",
        "generation/ffhq.py:smoke",  # with what is learnt once in several steps
        "generation/fashion_mnist.py:vqvae_smoke",  # its codebook is no parameter
        "generation/fashion_mnist.py:ddpm_smoke",
        "pretraining/digits_dino.py:smoke",
        "localization/shapes.py:smoke",
    ],
)
def test_other_tasks_are_tortured_too(config):
    command = [sys.executable, str(ROOT / "tests" / "kill_resume.py"), "--kills", "3"]
    command += ["--config", f"configs/{config}", "--steps", "400"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
