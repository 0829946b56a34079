"""Predict on images and folders: table, JSON, annotated pictures."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxvision.commands import source
from jaxvision.errors import UserError

if TYPE_CHECKING:
    from ml_collections import ConfigDict


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source.add_arguments(parser)
    parser.add_argument("inputs", nargs="+", help="image files and folders")
    parser.add_argument("--output", help="folder for predictions.json and pictures")
    parser.add_argument("--top", type=int, default=5, help="classes in the table (default 5)")
    parser.add_argument(
        "--threshold",
        help="score or probability from which something is found (default: the run's)",
    )
    parser.add_argument(
        "--tile",
        help="segment images, or find objects, at their own size by tiles: a side or HEIGHTxWIDTH",
    )
    parser.add_argument("--overlap", type=float, default=0.25, help="of tiles (default 0.25)")
    parser.add_argument(
        "--pad-to",
        type=int,
        default=64,
        help="segmentation: mirror images of many sizes to multiples of this, so that fewer "
        "programs are compiled; 1 leaves them (default 64)",
    )


def run(options: argparse.Namespace, overrides: dict[str, str]) -> None:
    from rich.console import Console
    from rich.table import Table

    from jaxvision import progress, runs, tasks
    from jaxvision.data.codecs import CorruptImageError

    chosen = source.open_run(options, overrides)
    if options.threshold is not None:
        _set_threshold(chosen.config, options.threshold)
    files = runs.image_files(options.inputs)
    tasks.require(chosen.task, "predict", "Prediction")
    report = tasks.report(chosen.config.task)
    table = Table("file", "prediction")
    failed, done = [], 0

    tile = sides(options.tile, "--tile") if options.tile else None

    def readable(bar: progress.Counter) -> Iterator[Any]:
        nonlocal done
        for found in runs.predict_files(
            chosen, files, tile, options.overlap, options.pad_to, bar.waiting
        ):
            bar.advance()
            if isinstance(found, CorruptImageError):
                failed.append(found)
                table.add_row(found.name, f"[red]unreadable: {found.reason}")
                continue
            table.add_row(str(found.file), report.cell(chosen.task, found, options.top))
            done += 1
            yield found

    with progress.Counter("Predicting", len(files)) as bar:
        if options.output:
            runs.write_predictions(chosen, readable(bar), Path(options.output), files)
        else:
            for _ in readable(bar):
                pass
    Console().print(table)
    if options.output:
        what = "1 picture" if done == 1 else f"{done} pictures"
        print(f"Wrote predictions.json and {what} to {options.output}")
    if failed and not done:
        raise UserError("None of the images could be read.")


def _set_threshold(config: "ConfigDict", value: str) -> None:
    """Raises:
    UserError: the task has no threshold, or the value is none.
    """
    from jaxvision.tasks import configuration

    if "threshold" not in config[config.task]:
        raise UserError(f"{config.task.capitalize()} has no threshold; leave --threshold out.")
    configuration.override(config, f"{config.task}.threshold", value)
    configuration.validate(config)


def sides(text: str, option: str) -> tuple[int, ...]:
    """`512`, `512x384` or, for volumes, `64x128x128`, as an option says it.

    Raises:
      UserError: it is none of these.
    """
    parts = text.split("x")
    if not all(part.isdigit() for part in parts):
        raise UserError(f"{option} is a side (512) or HEIGHTxWIDTH (512x384), not {text!r}.")
    return tuple(int(part) for part in parts)
