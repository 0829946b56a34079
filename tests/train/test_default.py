"""What README's first command promises."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_embedded_default_reaches_its_accuracy(tmp_path):
    # In a process of its own: programs that run long are worth the compiler's optimisations, which
    # the flags of the tests leave out.
    command = [sys.executable, "train.py", "--config", "configs/classification/digits.py"]
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    done = subprocess.run(
        [*command, "--workdir", str(tmp_path / "run")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    (result,) = [r for r in map(json.loads, lines) if r["split"] == "test"]
    assert result["accuracy"] >= 0.985
    assert math.isfinite(result["loss"])
