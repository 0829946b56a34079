"""Write the report of a run, or of several beside each other, as one HTML file."""

import argparse
from pathlib import Path

from jaxvision.commands import source
from jaxvision.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run")
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="default: report.html in the run's folder; of several runs, comparison.html here",
    )
    parser.add_argument("--split", help="e.g. test, 'train[90%%:]' (default: data.test)")
    parser.add_argument(
        "--files-only",
        action="store_true",
        help="from the run's files alone: nothing is evaluated, no data are needed",
    )
    source.add_checkpoint(parser)


def run(options: argparse.Namespace, overrides: dict[str, str]) -> None:
    from jaxvision.runs import reporting, stored_config

    folders = [Path(name) for name in options.runs]
    for folder in folders:
        stored_config(folder)  # there is a run
    several = len(folders) > 1
    if several and (options.split or options.files_only or overrides):
        raise UserError("Several runs are compared by their files; give one to evaluate it.")
    output = Path(options.output or ("comparison.html" if several else folders[0] / "report.html"))
    if output.is_dir() or not output.parent.is_dir():
        raise UserError(f"--output names a file in a folder that exists, not {output}.")
    if several:
        reporting.compare(folders, output)
    elif options.files_only:
        reporting.write_files_only(folders[0], output)
    else:
        opened = source.open_stored(str(folders[0]), options.checkpoint, overrides)
        reporting.write(opened, output, options.split or "")
    print(f"Wrote {output}")
