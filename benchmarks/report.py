"""What all benchmarks share: the machine, results as JSON, tables in Markdown.

A result is `{"benchmark", "command", "machine", "rows"}` and whatever else the benchmark adds.
Those under `benchmarks/results/` make docs/benchmarks.md, by `python benchmarks/render.py`: each
benchmark module has a function `markdown(result) -> str`, the section under its heading.
"""

import importlib.metadata
import json
import os
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets")


def processor() -> str:
    """The name of the processor."""
    lines = Path("/proc/cpuinfo")
    if lines.exists():
        for line in lines.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Those of the packages that this interpreter has."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine(**more: Any) -> dict[str, Any]:
    """Where a measurement was taken. Does not start JAX, so that workers may own the device.

    Args:
      more: what the benchmark knows beside it, e.g. `device="NVIDIA A100"`, or the versions of an
        interpreter that a worker runs in.
    """
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **versions(),
        **more,
    }


def _arguments() -> list[str]:
    """Those of this command, with names for the paths of other interpreters."""
    names = {"--torch": "PYTHON", "--torch-python": "PYTHON", "--tf-python": "TF_PYTHON"}
    given = sys.argv[1:]
    return [names.get(before, here) for before, here in zip(["", *given], given, strict=False)]


def save(path: Path | None, benchmark: str, rows: Any, about: Mapping[str, Any], **more: Any):
    """Writes a result, under a temporary name first; does nothing without a path."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    command = shlex.join(["python", f"benchmarks/{benchmark}.py", *_arguments()])
    result = {"benchmark": benchmark, "command": command, "machine": about, "rows": rows, **more}
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(result, indent=1) + "\n")
    temporary.replace(path)


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for row in rows:
        lines.append("| " + " | ".join("" if cell is None else str(cell) for cell in row) + " |")
    return "\n".join(lines)


def said(about: Mapping[str, Any]) -> str:
    """One line about a machine."""
    first = [f"{about['cores']} cores of {about['processor']}"]
    if about.get("device"):
        first.insert(0, str(about["device"]))
    rest = {
        key: value for key, value in about.items() if key not in ("processor", "cores", "device")
    }
    return "; ".join([*first, *(f"{name} {value}" for name, value in rest.items())])
