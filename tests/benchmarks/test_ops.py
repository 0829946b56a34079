"""The benchmark of single operations, on one of them."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["3x3 on 1x1", "RoIAlign, 512 boxes"])
def test_one_operation_is_measured_both_ways(name, tmp_path, monkeypatch):
    result = tmp_path / "ops.json"
    command = [sys.executable, "ops.py", "--only", name, "--repeat", "3"]
    subprocess.run([*command, "--json", str(result)], cwd=BENCHMARKS, check=True)
    found = json.loads(result.read_text())
    (row,) = found["rows"]
    assert row["name"] == name
    assert 0 < row["forward"]["ours"] < row["both"]["ours"]
    assert 0 < row["forward"]["plain"] < row["both"]["plain"]
    monkeypatch.syspath_prepend(BENCHMARKS)
    lines = importlib.import_module("ops").markdown(found).splitlines()
    assert lines[2].startswith(f"| {name} | ")
    assert lines[0].count("|") == lines[2].count("|")
