"""Evaluate a run, or published weights, on a split."""

import argparse
from pathlib import Path

from jaxvision.commands import source


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source.add_arguments(parser)
    parser.add_argument("--split", help="e.g. test, 'train[90%%:]' (default: data.test)")
    parser.add_argument("--json", metavar="FILE", help="also write the metrics there")
    parser.add_argument(
        "--output", metavar="FOLDER", help="detection: draw precision, recall and confusion there"
    )


def run(options: argparse.Namespace, overrides: dict[str, str]) -> None:
    import json

    from jaxvision import tasks
    from jaxvision.train.console import format_metrics
    from jaxvision.train.writers import write_atomically

    chosen = source.open_run(options, overrides)
    split = options.split or chosen.config.data.test
    result, sums = chosen.evaluate(split, Path(options.output) if options.output else None)
    shown = format_metrics(result, tuple(chosen.task.metrics), everything=True)
    print(f"{split}: {shown}")
    report = tasks.report(chosen.config.task)
    for line in report.lines(chosen.task, sums) if hasattr(report, "lines") else ():
        print(line)
    if options.json:
        write_atomically(Path(options.json), json.dumps({"split": split, **result}) + "\n")
