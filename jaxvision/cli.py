"""The `jaxvision` command: train, evaluate, predict, info, data prepare, and `COMMANDS`."""

import argparse
import errno
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from jaxvision import __version__
from jaxvision.commands import COMMANDS, source
from jaxvision.errors import UserError, unknown

_EXAMPLES = """\
examples:
  jaxvision train --config configs/classification/digits.py
  jaxvision train --config configs/segmentation/shapes_unet.py:smoke --workdir runs/try
  jaxvision train --config my_config.py --config.optimizer.learning_rate=0.01
  jaxvision evaluate --workdir runs/try --split "test[:50%]"
  jaxvision predict --workdir runs/try photo.jpg folder/ --output predictions
  jaxvision predict --model resnet50 --pretrained photo.jpg --output predictions
  jaxvision info models "resnet*"

A run is resumed by running it again with the same --workdir. Every configuration key can be set as
--config.KEY=VALUE; `jaxvision info config` lists them with their meaning.
"""

_OVERRIDES = "--config.KEY=VALUE sets any configuration key (`jaxvision info config` lists them)."


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command and exits: 0 when done, 2 on bad input (a message, no stack trace)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    logging.getLogger("absl").setLevel(logging.ERROR)
    traceback = "--traceback" in arguments or bool(os.environ.get("JAXVISION_TRACEBACK"))
    try:
        _dispatch([a for a in arguments if a != "--traceback"])
    except UserError as error:
        if traceback:
            raise
        _fail(str(error))
    except OSError as error:
        if traceback or error.errno not in _EXPLAINED:
            raise
        _fail(f"{_EXPLAINED[error.errno]}: {error.filename or error.strerror}.")
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)


_EXPLAINED = {
    errno.EACCES: "No permission to write or read",
    errno.EPERM: "No permission to write or read",
    errno.EROFS: "The file system is read-only",
    errno.ENOSPC: "The disk is full; nothing that was saved before is lost",
    errno.EDQUOT: "The disk quota is used up; nothing that was saved before is lost",
    errno.EFBIG: "The file would be too large for this file system",
    errno.ENOTDIR: "A file stands where a folder is needed",
    errno.EEXIST: "A file stands where a folder is needed",
}


def _fail(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr, flush=True)
    # Threads that still write checkpoints or read data must not keep a failed command alive.
    sys.stdout.flush()
    os._exit(2)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jaxvision",
        description="Computer vision in JAX: train, evaluate and use vision models.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"jaxvision {__version__}")
    parser.add_argument(
        "--traceback", action="store_true", help="show the stack trace of errors (anywhere)"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        sub.set_defaults(run=run)
        return sub

    train = command("train", _train, "Train as a config file says; resume if the workdir has a run")
    train.epilog = _OVERRIDES
    train.add_argument("--config", required=True, metavar="FILE[:VARIANT]", help="config file")
    train.add_argument("--workdir", help="folder of the run (default: a dated one under runs/)")
    train.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0")
    train.add_argument("--num-processes", type=int, help="number of processes")
    train.add_argument("--process-id", type=int, help="which process this is, from 0")

    for name, run, text in (
        ("evaluate", _evaluate, "Evaluate a run, or published weights, on a split"),
        ("predict", _predict, "Predict on images and folders: table, JSON, annotated pictures"),
    ):
        sub = command(name, run, text)
        sub.epilog = _OVERRIDES
        source.add_arguments(sub)
        if name == "evaluate":
            sub.add_argument("--split", help="e.g. test, 'train[90%%:]' (default: data.test)")
            sub.add_argument("--json", metavar="FILE", help="also write the metrics there")
        else:
            sub.add_argument("inputs", nargs="+", help="image files and folders")
            sub.add_argument("--output", help="folder for predictions.json and pictures")
            sub.add_argument("--top", type=int, default=5, help="classes in the table (default 5)")
            sub.add_argument(
                "--tile", help="segment images at their own size by tiles: a side or HEIGHTxWIDTH"
            )
            sub.add_argument("--overlap", type=float, default=0.25, help="of tiles (default 0.25)")

    info = command("info", _info, "Versions, devices, models, data sets, configuration keys")
    info.add_argument(
        "topic",
        nargs="?",
        default="devices",
        help="devices (default), models, weights, data or config",
    )
    info.add_argument("pattern", nargs="?", default="*", help="shell pattern of names")

    data = command("data", None, "Prepare data sets")
    actions = data.add_subparsers(dest="action", required=True, metavar="ACTION")
    prepare = actions.add_parser(
        "prepare", help="prepare a TFDS data set as ArrayRecord", allow_abbrev=False
    )
    prepare.set_defaults(run=_prepare)
    prepare.add_argument("name", help="digits, shapes or a name of the TFDS catalogue")
    prepare.add_argument("--data-dir", default="", help="where to (default: the TFDS default)")

    for name, module in COMMANDS.items():
        sub = command(name, module.run, (module.__doc__ or name).splitlines()[0].rstrip("."))
        sub.epilog = _OVERRIDES
        module.add_arguments(sub)
    return parser


def _dispatch(arguments: list[str]) -> None:
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    flags = [a.lstrip("-") for a in rest if a.startswith("-") and not a.startswith("--config.")]
    if flags:
        known = [a.lstrip("-") for a in _flags_of(parser, arguments)]
        raise unknown("option", flags[0].split("=")[0], known)
    options.run(options, _overrides(rest))


def _flags_of(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> list[str]:
    """Long options of the chosen command."""
    flags: list[str] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            chosen = next((a for a in arguments if a in action.choices), None)
            if chosen is not None:
                flags += _flags_of(action.choices[chosen], arguments)
        else:
            flags += [f for f in action.option_strings if f.startswith("--")]
    return flags


def _overrides(rest: Sequence[str]) -> dict[str, str]:
    """`--config.a.b=1` and `--config.a.b 1` as {"a.b": "1"}."""
    found: dict[str, str] = {}
    waiting = ""
    for argument in rest:
        if waiting:
            found[waiting], waiting = argument, ""
        elif argument.startswith("--config."):
            key, equals, value = argument.removeprefix("--config.").partition("=")
            if equals:
                found[key] = value
            else:
                waiting = key
        else:
            raise UserError(f"Unexpected argument {argument!r}.")
    if waiting:
        raise UserError(f"--config.{waiting} needs a value.")
    return found


# -- commands -------------------------------------------------------------------------------------


def _train(options: argparse.Namespace, overrides: dict[str, str]) -> None:
    from jaxvision.train.memory import garbage_waits, keep_freed_memory

    keep_freed_memory()
    with garbage_waits():
        import jax

        from jaxvision import config as configuration
        from jaxvision.train import distributed, run

    config = configuration.load(options.config, overrides)
    distributed.initialize(options.coordinator, options.num_processes, options.process_id)
    if options.workdir is None and jax.process_count() > 1:
        raise UserError("With several processes give them all the same --workdir.")
    stem = Path(options.config.partition(":")[0]).stem
    workdir = options.workdir or f"runs/{stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    if options.workdir is None:
        print(f"Workdir: {workdir}")
    run(config, workdir)


def _evaluate(options: argparse.Namespace, overrides: dict[str, str]) -> None:
    import json

    from jaxvision.metrics import TopK
    from jaxvision.train.console import format_metrics
    from jaxvision.train.inference import evaluate_split
    from jaxvision.train.writers import write_atomically

    config, origin = source.source(options, overrides)
    split = options.split or config.data.test
    if not split:
        raise UserError("The configuration names no test split; give --split.")
    result, accumulators = evaluate_split(config, origin, split)
    print(f"{split}: {format_metrics(result, everything=True)}")
    accuracy = accumulators.get("accuracy")
    if isinstance(accuracy, TopK):
        print(f"{int(accuracy.correct)} of {int(accuracy.count)} correct")
    if options.json:
        write_atomically(Path(options.json), json.dumps({"split": split, **result}) + "\n")


def _predict(options: argparse.Namespace, overrides: dict[str, str]) -> None:
    from rich.console import Console
    from rich.table import Table

    from jaxvision.data.codecs import CorruptImageError
    from jaxvision.train import inference

    config, origin = source.source(options, overrides)
    files = inference.image_files(options.inputs)
    table = Table("file", "prediction")
    failed, done = [], 0

    def readable() -> Iterator[Any]:
        nonlocal done
        tile = _tile(options.tile) if options.tile else None
        for found in inference.predict_files(
            config, origin, files, tile=tile, overlap=options.overlap
        ):
            if isinstance(found, CorruptImageError):
                failed.append(found)
                table.add_row(found.name, f"[red]unreadable: {found.reason}")
                continue
            classes = inference.summarize(found, config.data.classes, options.top)["classes"]
            cells = [f"{c['name']} {c.get('probability', c.get('share')):.1%}" for c in classes]
            table.add_row(str(found.file), "  ".join(cells[: options.top]))
            done += 1
            yield found

    if options.output:
        folder = Path(options.output)
        inference.write_predictions(readable(), config.data.classes, folder, files)
    else:
        for _ in readable():
            pass
    Console().print(table)
    if options.output:
        print(f"Wrote predictions.json and {done} pictures to {options.output}")
    if failed and not done:
        raise UserError("None of the images could be read.")


def _tile(text: str) -> tuple[int, ...]:
    """`512`, `512x384` or, for volumes, `64x128x128`."""
    sides = text.split("x")
    if not all(side.isdigit() for side in sides):
        raise UserError(f"--tile is a side (512) or HEIGHTxWIDTH (512x384), not {text!r}.")
    return tuple(int(side) for side in sides)


def _info(options: argparse.Namespace, overrides: dict[str, str]) -> None:
    import fnmatch

    from rich.console import Console
    from rich.table import Table

    console = Console()
    if options.topic == "devices":
        from importlib.metadata import version

        import jax

        packages = ("jaxvision", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain")
        console.print("  ".join(f"{name} {version(name)}" for name in packages))
        for device in jax.devices():
            console.print(f"{device.id}: {device.device_kind} ({device.platform})")
    elif options.topic == "models":
        from jaxvision import models

        table = Table("model", "input", "equal to")
        for name in models.names(options.pattern):
            entry = models.variant(name)
            table.add_row(name, "x".join(map(str, entry.input_shape)), entry.reference)
        console.print(table)
    elif options.topic == "weights":
        from jaxvision import models
        from jaxvision.interop.published import published

        table = Table("model", "tag", "size", "classes", "where")
        for name in models.names(options.pattern):
            for tag, file in published(name).items():
                where = file.hub or file.url
                table.add_row(name, tag, str(file.size), str(file.classes), where)
        console.print(table)
    elif options.topic == "data":
        import tensorflow_datasets as tfds

        from jaxvision.data.builders import BUILDERS

        console.print("Built in: " + ", ".join(BUILDERS))
        names = fnmatch.filter(tfds.list_builders(with_community_datasets=False), options.pattern)
        console.print(f"TFDS catalogue (jaxvision data prepare NAME): {', '.join(names)}")
        console.print("Your own files: data.source = folder, masks or idx; see docs/data.md")
    elif options.topic == "config":
        from jaxvision.config import KEYS

        table = Table("key", "default", "meaning")
        for path in KEYS:
            if fnmatch.fnmatch(path, options.pattern):
                table.add_row(path, str(KEYS[path].default), KEYS[path].meaning)
        console.print(table)
    else:
        raise unknown("topic", options.topic, ("devices", "models", "weights", "data", "config"))


def _prepare(options: argparse.Namespace, overrides: dict[str, str]) -> None:
    from jaxvision.data.prepare import prepare

    builder = prepare(options.name, options.data_dir)
    splits = ", ".join(f"{n} {s.num_examples}" for n, s in builder.info.splits.items())
    print(f"{builder.info.full_name} is ready in {builder.data_path}: {splits}")
    print(f"Use it with --config.data.name={options.name}")


if __name__ == "__main__":
    main()
