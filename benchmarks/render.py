"""Writes docs/benchmarks.md from the results in benchmarks/results/.

python benchmarks/render.py [--check]
"""

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

from report import RESULTS, said

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
# The order of the page: benchmark module, heading.
SECTIONS = {
    "training_step": "Training step",
    "inference": "Inference",
    "detection": "Detection and instances",
    "ops": "Operations",
    "loader": "Input pipeline",
    "first_step": "Time to the first step",
    "captioning": "Captioning",
    "adversarial": "Generative adversarial networks",
    "diffusion": "Diffusion",
    "pretraining": "Self-supervised learning",
    "scaling": "Scaling",
    "checkpoint": "Checkpoint",
}
HEAD = """# Benchmarks

Rendered by `python benchmarks/render.py` from `benchmarks/results/`; the command over each table
measures it again (`PYTHON` is an interpreter that has PyTorch, `TF_PYTHON` one with TensorFlow).
Both sides of a ratio ran in one process tree, their rounds interleaved, after compilation; times
are medians. Steps, inference and operations are timed only after their numbers were found equal.
The machine is a shared virtual one: the same command gives ratios that differ by about 10 %.
"""


def load(path: Path) -> dict[str, Any]:
    """What a command has saved."""
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        sys.exit(f"{path} is not a result: {error}")


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for name, heading in SECTIONS.items():
        results = [load(path) for path in sorted(RESULTS.glob(f"{name}*.json"))]
        results = [result for result in results if result["benchmark"] == name]
        if results:
            parts.append(f"## {heading}\n")
        for result in results:
            parts.append(f"    {result['command']}\n")
            parts.append(importlib.import_module(name).markdown(result).strip() + "\n")
            parts.append(f"*{said(result['machine'])}*\n")
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="only say whether the page is up to date"
    )
    options = parser.parse_args()
    if options.check:
        sys.exit(PAGE.read_text() != page() and f"{PAGE} is not what benchmarks/render.py writes.")
    PAGE.write_text(page())
    print(PAGE)


if __name__ == "__main__":
    main()
