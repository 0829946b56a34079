"""Notebooks run as a user's do: in an empty folder, in an environment without the package."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "colab").glob("*.ipynb"))
ADDRESS = "git+https://github.com/jaxvision/jaxvision"
# What stands for the notebook's kernel: `display` shows nothing, cells share a namespace.
KERNEL = """
import json, sys, types
display = types.ModuleType("IPython.display")
display.display = lambda *shown: print(f"{len(shown)} shown")
sys.modules |= {"IPython": types.ModuleType("IPython"), "IPython.display": display}
namespace = {"__name__": "__main__"}
for number, source in enumerate(json.load(open(sys.argv[1]))):
    exec(compile(source, f"cell {number}", "exec"), namespace)
"""


def cells_of(path):
    notebook = json.loads(path.read_text())
    assert notebook["nbformat"] == 4
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def execute(path, python, folder, **environment):
    """Runs the cells in an empty folder; the repository's address stands for the checkout."""
    sources = ["".join(cell["source"]) for cell in cells_of(path)]
    assert ADDRESS in sources[0]
    # Building leaves traces in its source, so it is a clone; what is not committed comes along.
    sources[0] = sources[0].replace(ADDRESS, f"file://{folder / 'source'}")
    (folder / "cells.json").write_text(json.dumps(sources))
    (folder / "kernel.py").write_text(KERNEL)
    (folder / "here").mkdir()
    command = [python, str(folder / "kernel.py"), str(folder / "cells.json")]
    hidden = ("PYTHONPATH", "XLA_FLAGS", "JAX_PLATFORMS")
    env = {k: v for k, v in os.environ.items() if k not in hidden} | environment
    done = subprocess.run(command, cwd=folder / "here", env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_are_ready_for_colab(path):
    text = path.read_text()
    assert f"colab/{path.name})" in text  # the badge
    assert len(text) < 400_000
    cells = cells_of(path)
    assert any(cell["outputs"] for cell in cells)  # stored, so that it can be read without running
    errors = [out for cell in cells for out in cell["outputs"] if out["output_type"] == "error"]
    assert not errors
    assert cells[0]["source"] == cells_of(NOTEBOOKS[0])[0]["source"]  # they install alike
    assert f"colab/{path.name})" in (ROOT / "docs" / "notebooks.md").read_text()


@pytest.mark.slow
def test_the_quick_start_runs(tmp_path):
    shown = execute(ROOT / "colab" / "quickstart.ipynb", sys.executable, tmp_path)
    assert "1 shown" in shown


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_install_what_they_need(path, tmp_path):
    copied = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")
    import shutil

    (tmp_path / "source").mkdir()
    for name in copied:
        shutil.copy(ROOT / name, tmp_path / "source")
    for name in ("jaxvision", "configs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / "source" / name, ignore=ignored)
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    missing = [str(python), "-c", "import jaxvision"]
    assert subprocess.run(missing, cwd=tmp_path, capture_output=True).returncode == 1
    execute(path, str(python), tmp_path)
