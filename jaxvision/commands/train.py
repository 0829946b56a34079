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
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="compile the step and say what it takes: mesh, batches, memory, what is exchanged",
    )
    parser.add_argument(
        "--devices", type=int, metavar="N", help="with --dry-run: as on so many devices, on the CPU"
    )
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0")
    parser.add_argument("--num-processes", type=int, help="number of processes")
    parser.add_argument("--process-id", type=int, help="which process this is, from 0")


def run(options: argparse.Namespace, overrides: dict[str, str]) -> None:
    from jaxvision.train.memory import garbage_waits, keep_freed_memory

    if options.devices is not None and not (options.dry_run and options.devices > 0):
        raise UserError("--devices is how many a --dry-run is for, 1 or more.")
    keep_freed_memory()
    with garbage_waits():
        import jax

        if options.devices:
            jax.config.update("jax_platforms", "cpu")
            jax.config.update("jax_num_cpu_devices", options.devices)
        from jaxvision import train
        from jaxvision.tasks import configuration
        from jaxvision.train import distributed

    config = configuration.load(options.config, overrides)
    distributed.initialize(options.coordinator, options.num_processes, options.process_id)
    if options.dry_run:
        from jaxvision.train.rehearsal import rehearse

        lines = rehearse(config).lines()
        if jax.process_index() == 0:
            print(*lines, "Nothing was trained or written.", sep="\n")
        return
    if options.workdir is None and jax.process_count() > 1:
        raise UserError("With several processes give them all the same --workdir.")
    workdir = options.workdir
    if workdir is None:
        stem = Path(options.config.partition(":")[0]).stem
        workdir = f"runs/{stem}-{time.strftime('%Y%m%d-%H%M%S')}"
        print(f"Workdir: {workdir}")
    train.run(config, workdir)
