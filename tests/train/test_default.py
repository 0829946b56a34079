"""What README's first command promises."""

import math
from pathlib import Path

from jaxvision.tasks import configuration
from jaxvision.train import run

DIGITS = str(Path(__file__).parents[2] / "configs" / "classification" / "digits.py")


def test_the_embedded_default_reaches_its_accuracy(tmp_path):
    result = run(configuration.load(DIGITS), tmp_path / "run")
    assert result["accuracy"] >= 0.985
    assert math.isfinite(result["loss"])
