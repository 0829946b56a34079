"""Train as a config file says; resume if the workdir has a run."""

import argparse
import time
from pathlib import Path

from jaxvision.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        required=True,
        metavar="FILE[:VARIANT]",
        help="config file, or the name of one that comes with the package (`info configs`)",
    )
    parser.add_argument("--workdir", help="folder of the run (default: a dated one under runs/)")
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0")
    parser.add_argument("--num-processes", type=int, help="number of processes")
    parser.add_argument("--process-id", type=int, help="which process this is, from 0")


def run(options: argparse.Namespace, overrides: dict[str, str]) -> None:
    from jaxvision.train.memory import garbage_waits, keep_freed_memory

    keep_freed_memory()
    with garbage_waits():
        import jax

        from jaxvision import train
        from jaxvision.tasks import configuration
        from jaxvision.train import distributed

    config = configuration.load(options.config, overrides)
    distributed.initialize(options.coordinator, options.num_processes, options.process_id)
    if options.workdir is None and jax.process_count() > 1:
        raise UserError("With several processes give them all the same --workdir.")
    workdir = options.workdir
    if workdir is None:
        stem = Path(options.config.partition(":")[0]).stem
        workdir = f"runs/{stem}-{time.strftime('%Y%m%d-%H%M%S')}"
        print(f"Workdir: {workdir}")
    train.run(config, workdir)
