"""How long a checkpoint holds up the training loop, and what writing it in the background costs.

    python benchmarks/checkpoint.py [--model vit_base_patch16_224] [--batch 1] [--rounds 10]
        [--dir DIR] [--json FILE] [--torch-python PYTHON]

The state is the network's parameters and Adam's two moments. `ours` is what the loop does:
`jaxvision.train.checkpoint.Checkpoints.save`, which returns when the state is copied, while steps
go on and Orbax writes, commits and we seal with checksums. The others stop the loop until they are
done: Orbax's own synchronous save, and `torch.save` of tensors of the same shapes (which leaves the
bytes to the operating system; `on disk` is after an fsync). Steps are timed one by one, with and
without a save under way; rounds of ours and Orbax's are interleaved, torch's come after; medians
are shown. An epoch is ImageNet's training set, at the rate of the steps measured here and at that
of an accelerator (`--rate`). Files go to a temporary folder below --dir, which needs some
gigabytes, and are deleted.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from report import machine, save, table

IMAGENET = 1_281_167
OURS, ORBAX, TORCH = "ours, in the background", "Orbax, synchronous", "torch.save"


def size_of(path: Path) -> int:
    """Bytes of a file, or of all below a folder."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


# -- torch, in an interpreter of its own ----------------------------------------------------------


def torch_saves(shapes: list[list[int]], folder: Path, rounds: int) -> dict[str, Any]:
    """Seconds of `torch.save` and until the file is on disk, of each round."""
    import os

    import torch

    torch.manual_seed(0)
    state = {str(index): torch.randn(shape) for index, shape in enumerate(shapes)}
    found: dict[str, Any] = {"blocked": [], "on_disk": []}
    path = folder / "state.pt"
    for _ in range(rounds):
        start = time.perf_counter()
        torch.save(state, path)
        found["blocked"].append(time.perf_counter() - start)
        with path.open("rb") as file:
            os.fsync(file.fileno())
        found["on_disk"].append(time.perf_counter() - start)
        found["bytes"] = size_of(path)
        path.unlink()
    return found


def torch_in(python: str, shapes: list[list[int]], folder: Path, rounds: int) -> dict[str, Any]:
    """`torch_saves` by another interpreter.

    Raises:
      RuntimeError: the last line of its errors.
    """
    (folder / "shapes.json").write_text(json.dumps(shapes))
    command = [python, "-W", "ignore", __file__, "--torch-saves", str(folder)]
    done = subprocess.run([*command, "--rounds", str(rounds)], capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise RuntimeError((done.stderr.strip().splitlines() or ["it ended without a word"])[-1])
    return json.loads(lines[-1])


# -- ours -----------------------------------------------------------------------------------------


class Training:
    """A loop without data: steps on one batch."""

    def __init__(self, model: str, batch: int, size: int):
        from first_step import noise, prepare

        from jaxvision.train import compilation, mesh
        from jaxvision.train.memory import keep_freed_memory

        keep_freed_memory()
        compilation.use_cache("auto")
        setup = prepare(model, {}, size)
        self.batch = noise(batch, size, mesh.batch_sharding(setup.devices))
        self.state, compiled = setup.begin(self.batch)
        self.call = compiled.call

    def step(self) -> float:
        """Seconds of one."""
        import jax

        start = time.perf_counter()
        self.state, _ = self.call(self.state, self.batch)
        jax.block_until_ready(self.state)
        return time.perf_counter() - start


def in_background(training: Training, folder: Path, alone: int) -> dict[str, Any]:
    """One save by ours and the steps before and meanwhile."""
    from jaxvision.train.checkpoint import Checkpoints

    checkpoints = Checkpoints(folder / "ours", keep=1)
    steps = [training.step() for _ in range(alone)]
    number = int(training.state.step)
    start = time.perf_counter()
    checkpoints.save(training.state, {"progress": {}})
    blocked = time.perf_counter() - start
    meanwhile = []
    with ThreadPoolExecutor(1) as thread:
        written = thread.submit(lambda: (checkpoints.wait(), time.perf_counter())[1])
        while not written.done():
            meanwhile.append(training.step())
        on_disk = written.result() - start
    checkpoints.close()
    return {
        "blocked": blocked,
        "on_disk": on_disk,
        "bytes": size_of(folder / "ours" / str(number)),
        "step": statistics.median(steps),
        "held_up": sum(meanwhile) - len(meanwhile) * statistics.median(steps),
        "meanwhile": len(meanwhile),
    }


def synchronous(training: Training, folder: Path) -> dict[str, Any]:
    """One save by Orbax that is on disk when it returns."""
    import orbax.checkpoint as ocp

    path = folder / "orbax"
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        start = time.perf_counter()
        checkpointer.save(path, args=ocp.args.StandardSave(training.state))
        blocked = time.perf_counter() - start
    return {"blocked": blocked, "on_disk": blocked, "bytes": size_of(path)}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Rows of medians, the seconds of a step alone and the versions of the peers."""
    import jax

    training = Training(options.model, options.batch, options.size)
    training.step()
    shapes = [list(leaf.shape) for leaf in jax.tree.leaves(training.state)]
    runs: dict[str, Callable[[Path], dict[str, Any]]] = {
        OURS: lambda folder: in_background(training, folder, options.steps),
        ORBAX: lambda folder: synchronous(training, folder),
    }
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in runs}
    for _ in range(options.rounds):
        for name, run in runs.items():
            folder = Path(tempfile.mkdtemp(dir=options.dir))
            try:
                found[name].append(run(folder))
            finally:
                shutil.rmtree(folder)
    medians = {
        name: {key: statistics.median(run[key] for run in many) for key in many[0]}
        for name, many in found.items()
    }
    if options.torch_python:
        with tempfile.TemporaryDirectory(dir=options.dir) as folder:
            torch = torch_in(options.torch_python, shapes, Path(folder), options.rounds)
        for key in ("blocked", "on_disk"):
            torch[key] = statistics.median(torch[key])
        medians[TORCH] = torch
    step = medians[OURS].pop("step")
    rates = {"measured": options.batch / step, "stated": options.rate}
    return {"rows": rows_of(medians, rates), "step": step, "rates": rates}


# -- reporting ------------------------------------------------------------------------------------


def rows_of(medians: dict[str, dict[str, Any]], rates: dict[str, float]) -> list[dict[str, Any]]:
    """What is lost by each way: blocked and, in the background, by steps held up; of an epoch."""
    rows = []
    for name in (OURS, ORBAX, TORCH):
        if name not in medians:
            print(f"{name}: not measured, --torch-python is not given", file=sys.stderr)
            rows.append({"way": name})
            continue
        row = {"way": name, **medians[name]}
        row["lost"] = row["blocked"] + row.get("held_up", 0.0)
        for kind, rate in rates.items():
            row[f"blocked_of_{kind}_epoch"] = row["blocked"] * rate / IMAGENET
            row[f"lost_of_{kind}_epoch"] = row["lost"] * rate / IMAGENET
        rows.append(row)
    return rows


def markdown(result: dict[str, Any]) -> str:
    """The section of docs/benchmarks.md."""
    rates = result["rates"]
    cells = [
        (
            row["way"],
            f"{row['blocked']:.2f} s",
            f"{row['on_disk']:.2f} s",
            f"{row['bytes'] / 1e9:.2f}",
            f"{row['held_up']:.2f} s over {row['meanwhile']:g} steps" if "held_up" in row else "",
            f"{row['blocked_of_stated_epoch']:.2%}",
            f"{row['lost_of_stated_epoch']:.2%}",
            f"{row['lost_of_measured_epoch']:.4%}",
        )
        if "blocked" in row
        else (row["way"], "not measured", *[""] * 6)
        for row in result["rows"]
    ]
    stated, measured = f"{rates['stated']:,.0f}", f"{rates['measured']:.2f}"
    head = (
        "",
        "loop blocked",
        "on disk after",
        "GB",
        "steps held up meanwhile",
        f"blocked, of an epoch at {stated} images/s",
        "lost in all, of the same",
        f"of an epoch at {measured} images/s",
    )
    return (
        f"{result['model']} with Adam's moments, saved once; an epoch is {IMAGENET:,} images, at "
        f"the {measured} images/s of the steps measured here and at {stated}, as an accelerator "
        f"may reach; medians of {result['rounds']} rounds.\n\n" + table(head, cells)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="vit_base_patch16_224")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--size", type=int, default=224, help="of the images, in pixels")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=5, help="alone, before each save of ours")
    parser.add_argument("--rate", type=float, default=2600, help="images/s of an accelerator")
    parser.add_argument("--dir", type=Path, help="where to write (default: the system's)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--torch-python", help="an interpreter that has torch, for torch.save")
    parser.add_argument("--torch-saves", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.torch_saves:
        shapes = json.loads((options.torch_saves / "shapes.json").read_text())
        print(json.dumps(torch_saves(shapes, options.torch_saves, options.rounds)))
        return
    result = {**measure(options), "model": options.model, "rounds": options.rounds}
    print(markdown(result))
    save(options.json, "checkpoint", about=machine(), **result)


if __name__ == "__main__":
    main()
