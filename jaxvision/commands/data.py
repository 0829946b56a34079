"""Prepare data sets."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    prepare = actions.add_parser(
        "prepare", help="prepare a TFDS data set as ArrayRecord", allow_abbrev=False
    )
    prepare.add_argument("name", help="digits, shapes or a name of the TFDS catalogue")
    prepare.add_argument("--data-dir", default="", help="where to (default: the TFDS default)")


def run(options: argparse.Namespace, overrides: dict[str, str]) -> None:
    from jaxvision.data.prepare import prepare

    builder = prepare(options.name, options.data_dir)
    splits = ", ".join(f"{n} {s.num_examples}" for n, s in builder.info.splits.items())
    print(f"{builder.info.full_name} is ready in {builder.data_path}: {splits}")
    print(f"Use it with --config.data.name={options.name}")
