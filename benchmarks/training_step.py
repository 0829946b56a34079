"""A training step (forward, backward, update) beside PyTorch's and beside Flax's own layers.

    python benchmarks/training_step.py [--only NAME ...] [--torch PYTHON] [--json FILE]
        [--dtype bfloat16] [--batch N] [--size N] [--repeat 10] [--keep-memory]

Sides: ours; the same network on Flax's layers; PyTorch eager, channels-last and compiled (if
`PYTHON`, this one by default, can import it). Each is a process of its own. They are given the same
weights, images and labels, their losses over two steps must agree, and then rounds of all of them
are interleaved. Images/s are medians over the rounds; "of peak" is the share of the fastest matrix
product measured on the same device that the network's multiply-adds (thrice those of inference)
make up; memory is the most that the process or the accelerator had in use. Ours runs as `train.py`
runs it: with its compiler options, and on CPUs keeping freed memory; the others keep it with
--keep-memory.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from networks import NETWORKS
from report import machine, save, table
from steps import COMPILE, EAGER, FLAX, OURS, TORCH
from workers import Worker, interleaved

HERE = Path(__file__).parent
TOLERANCE = {"float32": 2e-3, "bfloat16": 5e-2}


def sides_of(torch: bool, wanted: list[str] | None) -> list[str]:
    """The sides to measure; PyTorch's first, as it makes the weights."""
    sides = [*(TORCH if torch else ()), OURS, FLAX]
    return [side for side in sides if wanted is None or side in wanted]


def measure(
    name: str,
    sides: list[str],
    options: Any,
    train: bool,
    batch: int,
    size: int,
    script: str = "steps.py",
    tolerance: float | None = None,
) -> dict[str, Any]:
    """One row: everything about one network.

    Args:
      script: the worker's.
      tolerance: by which numbers may differ; of the data type by default.

    Raises:
      RuntimeError: the sides' numbers are not the same.
    """
    row: dict[str, Any] = {"network": name, "batch": batch, "size": size, "sides": {}}
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    more = ["--keep-memory"] if options.keep_memory else []
    workers: dict[str, Worker] = {}
    with tempfile.TemporaryDirectory() as folder:
        setup = {
            "network": name,
            "batch": batch,
            "size": size,
            "dtype": options.dtype,
            "train": train,
            "weights": str(Path(folder) / "weights.safetensors"),
        }
        try:
            for side in sides:
                python = options.torch if side in TORCH else sys.executable
                workers[side] = Worker(python, str(HERE / script), side, *more, **environment)
                try:
                    row["sides"][side] = workers[side].ask(command="setup", **setup)
                except RuntimeError as error:
                    row["sides"][side] = {"missing": str(error)}
                    workers.pop(side).close()
            agree(row, tolerance or TOLERANCE[options.dtype])
            if OURS in workers:
                row["peak"] = workers[OURS].ask(command="peak", dtype=options.dtype)
            counts = {
                side: max(1, round(options.seconds / worker.ask(command="steps", count=1)))
                for side, worker in workers.items()
            }
            runs = {
                side: lambda worker=worker, side=side: worker.ask(
                    command="steps", count=counts[side]
                )
                for side, worker in workers.items()
            }
            for side, seconds in interleaved(runs, options.repeat).items():
                row["sides"][side]["seconds"] = seconds
                row["sides"][side]["memory"] = workers[side].ask(command="memory")
        finally:
            for worker in workers.values():
                worker.close()
    return row


def agree(row: dict[str, Any], tolerance: float) -> None:
    """Checks that all sides have the same numbers.

    Raises:
      RuntimeError: they have not.
    """
    numbers = {side: one["numbers"] for side, one in row["sides"].items() if "numbers" in one}
    first = next(iter(numbers), None)
    for side, values in numbers.items():
        scale = max(abs(value) for value in numbers[first])
        worst = max(abs(a - b) for a, b in zip(values, numbers[first], strict=True)) / scale
        if worst > tolerance:
            raise RuntimeError(
                f"{row['network']}: {side} and {first} differ by {worst:.1e}:"
                f" {values[:3]}, {numbers[first][:3]}"
            )
        row["sides"][side]["deviation"] = worst


def rate(row: dict[str, Any], side: str) -> float | None:
    """Images/s of a side."""
    seconds = row["sides"].get(side, {}).get("seconds")
    return row["batch"] / seconds if seconds else None


def best_torch(row: dict[str, Any]) -> float | None:
    """Images/s of PyTorch's fastest side."""
    return max(filter(None, (rate(row, side) for side in TORCH)), default=None)


def ratio(a: float | None, b: float | None) -> str:
    """`a / b` for a table."""
    return "" if a is None or b is None else f"{a / b:.2f}"


def markdown(result: dict[str, Any]) -> str:
    """The section of docs/benchmarks.md."""
    shown = {**{side: side.replace("_", "-") for side in TORCH}, FLAX: "Flax's layers"}
    lines = []
    peak = max(row["peak"] for row in result["rows"])
    for row in result["rows"]:
        ours = row["sides"][OURS]
        share = ours["flops_per_image"] * rate(row, OURS) / peak
        lines.append(
            [
                f"{NETWORKS[row['network']].title}, {row['batch']} x {row['size']} px",
                f"{rate(row, OURS):.1f}",
                *(f"{rate(row, side):.1f}" if rate(row, side) else "" for side in shown),
                ratio(rate(row, OURS), best_torch(row)),
                ratio(rate(row, OURS), rate(row, FLAX)),
                f"{100 * share:.0f} %",
                " / ".join(
                    f"{row['sides'][side]['memory'] / 2**30:.1f}"
                    for side in (OURS, EAGER, COMPILE, FLAX)
                    if "memory" in row["sides"].get(side, {})
                ),
            ]
        )
    head = [
        "images/s",
        "ours",
        *(f"PyTorch {shown[side]}" for side in TORCH),
        shown[FLAX],
        "ours / best PyTorch",
        "ours / Flax's",
        "of peak",
        "GiB: ours / eager / compile / Flax's",
    ]
    missing = {
        f"{NETWORKS[row['network']].title}, {side}: {one['missing']}"
        for row in result["rows"]
        for side, one in row["sides"].items()
        if "missing" in one
    }
    notes = [
        f"{result['dtype']}; the fastest matrix product: {peak / 1e9:,.0f} GFLOP/s. On CPUs ours "
        "keeps freed memory, as `train.py` does; the others have the system's default unless the "
        "command says `--keep-memory`."
    ]
    notes += [f"Not measured: {line}" for line in sorted(missing)]
    return table(head, lines) + "\n\n" + "\n".join(notes)


def by_pass(result: dict[str, Any], titles: Mapping[str, str]) -> str:
    """The section of docs/benchmarks.md of a benchmark whose rows are of one pass or another.

    Args:
      result: its rows say `pass`.
      titles: of the networks.
    """
    lines = [
        [
            f"{titles[row['network']]}, {row['pass']}, {row['batch']} x {row['size']} px",
            f"{rate(row, OURS):.2f}",
            *(f"{rate(row, side):.2f}" if rate(row, side) else "" for side in TORCH),
            ratio(rate(row, OURS), best_torch(row)),
            f"{row['sides'][OURS]['memory'] / 2**30:.1f}",
        ]
        for row in result["rows"]
    ]
    named = [f"PyTorch {side.replace('_', '-')}" for side in TORCH]
    head = ["images/s", "ours", *named, "ours / best PyTorch", "GiB, ours"]
    missing = {
        f"Not measured: {titles[row['network']]}, {row['pass']}, {side}: {one['missing']}"
        for row in result["rows"]
        for side, one in row["sides"].items()
        if "missing" in one
    }
    return "\n".join([table(head, lines), "", f"{result['dtype']}.", *sorted(missing)])


def compare_passes(
    options: Any,
    benchmark: str,
    cases: Iterable[tuple[str, str, int, int]],
    tolerance: Mapping[str, float],
) -> None:
    """Measures ours and PyTorch's sides case by case, and saves as they come.

    Args:
      options: as `arguments` gives them.
      benchmark: its module's name; the worker is `BENCHMARK_steps.py`.
      cases: (network, pass, batch, side of the images); the pass "training" trains.
      tolerance: by which numbers may differ, of each pass.
    """
    sides = [s for s in sides_of(has_torch(options.torch), options.sides) if s != FLAX]
    rows = []
    for name, kind, batch, size in cases:
        row = measure(
            *(name, sides, options, kind == "training", batch, size),
            script=f"{benchmark}_steps.py",
            tolerance=tolerance[kind],
        )
        rows.append({**row, "pass": kind})
        show(rows[-1])
        save(options.json, benchmark, rows, about(rows), dtype=options.dtype)


def arguments(description: str, networks: Iterable[str] = NETWORKS) -> argparse.ArgumentParser:
    """The options that steps and inference share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--only", nargs="+", choices=networks, metavar="NAME")
    parser.add_argument("--sides", nargs="+", choices=[OURS, FLAX, *TORCH], metavar="SIDE")
    parser.add_argument("--repeat", type=int, default=10, help="rounds to take the median of")
    parser.add_argument("--seconds", type=float, default=0.7, help="of each side in a round")
    parser.add_argument("--dtype", choices=TOLERANCE, default="float32")
    parser.add_argument("--size", type=int, help="side of the images")
    parser.add_argument("--torch", default=sys.executable, help="a Python that can import torch")
    parser.add_argument(
        "--keep-memory",
        action="store_true",
        help="all processes keep freed memory on CPUs, not only ours (jaxvision/train/memory.py)",
    )
    parser.add_argument("--json", type=Path, help="write the result to this file")
    return parser


def on_accelerator() -> bool:
    """Whether this machine has one that JAX would use, found without starting JAX here."""
    return Path("/dev/nvidia0").exists() or "TPU_NAME" in os.environ


def has_torch(python: str) -> bool:
    """Whether an interpreter can import PyTorch; says so if not."""
    code = "import importlib.util as u, sys; sys.exit(u.find_spec('torch') is None)"
    found = os.spawnv(os.P_WAIT, python, [python, "-c", code]) == 0
    if not found:
        print(f"{python} has no PyTorch: its sides are left out", file=sys.stderr)
    return found


def show(row: dict[str, Any]) -> None:
    """One line about a row."""
    parts = [f"{row['network']:15} {row['batch']} x {row['size']} px:"]
    for side, one in row["sides"].items():
        shown = one.get("missing") or f"{rate(row, side):.1f}"
        parts.append(f"{side} {shown}")
    parts.append(f"| / best torch {ratio(rate(row, OURS), best_torch(row))}")
    if FLAX in row["sides"]:
        parts.append(f"| / flax {ratio(rate(row, OURS), rate(row, FLAX))}")
    print("  ".join(parts), flush=True)


def about(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The machine and the versions that the workers told."""
    told: dict[str, Any] = {}
    for row in rows:
        for one in row["sides"].values():
            told |= one.get("versions", {})
            told |= {"device": one["device"]} if "device" in one else {}
    return machine(**told)


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, help="images of a step")
    options = parser.parse_args()
    sides = sides_of(has_torch(options.torch), options.sides)
    rows = []
    for name in options.only or NETWORKS:
        network = NETWORKS[name]
        batch, size = network.accelerator if on_accelerator() else (network.batch, network.size)
        rows.append(
            measure(name, sides, options, True, options.batch or batch, options.size or size)
        )
        show(rows[-1])
        save(options.json, "training_step", rows, about(rows), dtype=options.dtype)


if __name__ == "__main__":
    main()
