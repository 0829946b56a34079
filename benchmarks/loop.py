"""The loop's images/s against the bare jitted step's on the same kind of batch.

    python benchmarks/loop.py [--model resnet20_cifar] [--batch 64] [--steps 60] [--rounds 5]

The bare step is called again and again on one batch that stays on the device. The loop is
`jaxvision.train.run` with everything on: loading, shuffling, logging, progress. Both alternate in
one process; the medians over the rounds and their ratio are printed. Target: at least 0.97.
"""

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
from pathlib import Path

import jax

from jaxvision import tasks
from jaxvision.train import compilation, mesh, run
from jaxvision.train.beginning import facts_of, open_loader, spec_of
from jaxvision.train.setup import prepare


def configured(model: str, batch: int, steps: int):
    """CIFAR-shaped training on the built-in shapes, decoded once."""
    config = tasks.default_config()
    config.data.name = "shapes"
    config.data.options = {"size": 32, "train": 2000, "test": 100}
    config.data.cache = True
    config.data.test = "test[:1]"
    config.data.augment = ({"name": "flip_horizontal"}, {"name": "random_crop", "padding": 4})
    config.model.name = model
    config.optimizer.name = "sgd"
    config.train.batch_size = batch
    config.train.duration = steps + 11  # the first record ends where the step is warm
    config.train.log_every = 10
    config.eval.every = config.checkpoint.every = "never"
    config.eval.pictures = 0
    return config


def bare(config, steps: int) -> float:
    """Images/s of the compiled step alone."""
    devices = mesh.make(config)
    loader = open_loader(config, config.data.train, devices, train=True)
    task = tasks.create(config, facts_of(config, loader))
    batch = next(loader.batches(0, 1))
    setup = prepare(config, task, devices, spec_of(loader), total=1000, steps_per_epoch=100)
    state, step = setup.begin(batch)
    compiled = step.call
    for _ in range(5):
        state, _ = compiled(state, batch)
    jax.block_until_ready(state)
    start = time.perf_counter()
    for _ in range(steps):
        state, _ = compiled(state, batch)
    jax.block_until_ready(state)
    return steps * config.train.batch_size / (time.perf_counter() - start)


def loop(config) -> float:
    """Images/s of the whole loop, from its own records after the first."""
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.redirect_stdout(io.StringIO()):
            run(config, folder)
        lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    records = [r for r in map(json.loads, lines) if r["split"] == "train"][1:]
    seconds = sum(1 / r["images_per_second"] for r in records)
    return len(records) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet20_cifar")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    config = configured(options.model, options.batch, options.steps)
    compilation.use_cache("auto")
    rates = {"bare step": [], "loop": []}
    for _ in range(options.rounds):
        rates["bare step"].append(bare(config, options.steps))
        rates["loop"].append(loop(config))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, value in medians.items():
        print(f"{name:10s} {value:8.1f} images/s")
    ratio = medians["loop"] / medians["bare step"]
    print(
        f"loop / bare step: {ratio:.3f}   (jax {jax.__version__}, {jax.devices()[0].device_kind})"
    )
    if options.json:
        options.json.write_text(json.dumps({"rates": rates, "ratio": ratio}, indent=2) + "\n")


if __name__ == "__main__":
    main()
