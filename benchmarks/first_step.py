"""Seconds from the start of a process to the end of its first training step.

    python benchmarks/first_step.py [--networks NAME ...] [--batch 2] [--size 128]
        [--cold 10] [--cached 10] [--json FILE]

Each measurement is a process of its own that does what `jaxvision.train.run` does up to the end of
the first step, but for reading data: it imports the training loop; makes the mesh, the task and the
optimiser (`preparing`); traces and compiles the step and draws the initial state meanwhile
(`compiling`); and runs it on one batch. `cold` has an empty folder for compiled programs, `cached`
one that a cold process of the same network filled. Rounds go through all networks; medians are
shown.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from report import machine, save, table

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "ResNet-50": ("resnet50", {}),
    "DenseNet-121": ("densenet121", {}),
    "ViT-L/16": ("vit_large_patch16_224", {}),
    "ViT-L/16, scanned": ("vit_large_patch16_224", {"scan": True}),
    "ResNet-8 for CIFAR": ("resnet8_cifar", {}),
}
DEFAULT = [name for name in NETWORKS if name != "ResNet-8 for CIFAR"]  # which is for trying out
PHASES = ("imports", "preparing", "compiling", "first step")
CLASSES = 1000


# -- in a process of its own ----------------------------------------------------------------------


def prepare(model: str, options: dict[str, Any], size: int) -> Any:
    """What `jaxvision.train.run` settles before the first step of a fresh network."""
    from jaxvision import tasks
    from jaxvision.data.facts import Facts
    from jaxvision.tasks import configuration
    from jaxvision.tasks.base import image_spec
    from jaxvision.train import mesh, setup

    config = tasks.default_config()
    config.model.name, config.optimizer.name = model, "adam"
    for name, value in options.items():
        configuration.set_key(config, f"model.options.{name}", value)
    configuration.validate(config)
    task = tasks.create(config, Facts(tuple(map(str, range(CLASSES)))))
    spec = image_spec((size, size, 3))
    return setup.prepare(config, task, mesh.make(config), spec, total=1000, steps_per_epoch=100)


def noise(batch: int, size: int, sharding: Any) -> dict[str, Any]:
    """A batch of images on the device."""
    import jax
    import numpy as np

    random = np.random.default_rng(0)
    rows = {
        "image": random.integers(0, 256, (batch, size, size, 3), np.uint8),
        "label": random.integers(0, CLASSES, batch, np.int32),
        "valid": np.ones(batch, bool),
    }
    return jax.device_put(rows, sharding)


def phases(name: str, cache: Path, batch: int, size: int, started: float) -> dict[str, float]:
    """Seconds of each phase of this process, which was `started` at this `time.time()`."""
    from jaxvision.train.memory import garbage_waits, keep_freed_memory

    keep_freed_memory()
    with garbage_waits():
        import jax

        import jaxvision.train.loop  # noqa: F401  everything that training imports
        from jaxvision.train import compilation, mesh
    marks = [started, time.time()]
    compilation.use_cache(str(cache))
    setup = prepare(*NETWORKS[name], size)
    rows = noise(batch, size, mesh.batch_sharding(setup.devices))
    marks.append(time.time())
    state, compiled = setup.begin(rows)
    marks.append(time.time())
    jax.block_until_ready(compiled.call(state, rows))
    marks.append(time.time())
    found = {phase: end - begin for phase, begin, end in zip(PHASES, marks, marks[1:])}
    return {**found, "total": marks[-1] - started}


# -- measuring ------------------------------------------------------------------------------------


def in_process(name: str, cache: Path, options: argparse.Namespace) -> dict[str, float]:
    """The phases of a fresh process.

    Raises:
      RuntimeError: the last line of its errors.
    """
    command = [sys.executable, __file__, "--only", name, "--cache", str(cache)]
    command += ["--batch", str(options.batch), "--size", str(options.size)]
    started = time.time()
    done = subprocess.run(
        [*command, "--started", str(started)], capture_output=True, text=True, env={**os.environ}
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise RuntimeError((done.stderr.strip().splitlines() or ["it ended without a word"])[-1])
    return json.loads(lines[-1])


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each network and kind of start: the medians."""
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for repeat in range(max(options.cold, options.cached)):
            for name in options.networks:
                cache = (
                    Path(temporary) / f"{name.replace('/', ' ')} {min(repeat, options.cold - 1)}"
                )
                if repeat < options.cold:
                    found.setdefault((name, "cold"), []).append(in_process(name, cache, options))
                if repeat < options.cached:
                    found.setdefault((name, "cached"), []).append(in_process(name, cache, options))
    return [
        {
            "network": name,
            "start": start,
            "runs": len(runs),
            **{
                phase: statistics.median(run[phase] for run in runs) for phase in (*PHASES, "total")
            },
        }
        for (name, start), runs in found.items()
    ]


def markdown(result: dict[str, Any]) -> str:
    """The section of docs/benchmarks.md."""
    cold = {row["network"]: row["total"] for row in result["rows"] if row["start"] == "cold"}
    cells = [
        (
            row["network"],
            f"{row['start']} ({row['runs']})",
            *(f"{row[phase]:.1f}" for phase in (*PHASES, "total")),
            f"{row['total'] / cold[row['network']]:.2f}",
        )
        for row in result["rows"]
    ]
    head = ("", "start (runs)", *PHASES, "total", "of cold")
    return (
        "Seconds from the start of a process to the end of its first training step, of "
        f"{result['batch']} images of {result['size']} pixels, with an empty folder of compiled "
        "programs (cold) and a filled one (cached); medians.\n\n" + table(head, cells)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=DEFAULT)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", type=int, default=128, help="of the images, in pixels")
    parser.add_argument("--cold", type=int, default=10, help="runs with an empty cache")
    parser.add_argument("--cached", type=int, default=10, help="runs with a filled one")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", choices=NETWORKS, help="this process is a measurement")
    parser.add_argument("--cache", type=Path, help="with --only: folder of compiled programs")
    parser.add_argument("--started", type=float, help="with --only: when the process was started")
    options = parser.parse_args()
    if options.cold < 1:
        parser.error("--cold fills what --cached reads; it is at least 1")
    if options.only:
        arguments = (options.only, options.cache, options.batch, options.size, options.started)
        print(json.dumps(phases(*arguments)))
        return
    result = {"rows": measure(options), "batch": options.batch, "size": options.size}
    print(markdown(result))
    save(options.json, "first_step", about=machine(), **result)


if __name__ == "__main__":
    main()
