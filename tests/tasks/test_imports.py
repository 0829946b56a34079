"""What tasks and the training step import: machines that only measure them lack some packages."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = (
    "jaxvision.tasks.classification.task",
    "jaxvision.tasks.segmentation.task",
    "jaxvision.train.step",
    "jaxvision.train.compilation",
)

# A module that is None in `sys.modules` cannot be imported.
PROGRAM = """
import importlib, sys
absent = "ml_collections grain tensorflow_datasets orbax orbax.checkpoint simplejpeg cv2"
sys.modules.update(dict.fromkeys(absent.split()))
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


@pytest.mark.parametrize("modules", [*((name,) for name in MODULES), MODULES], ids="+".join)
def test_steps_need_no_loader_no_checkpoints_and_no_configuration(modules):
    command = [sys.executable, "-c", PROGRAM, *modules]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
