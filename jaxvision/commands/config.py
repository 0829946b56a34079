"""Copy a configuration file that comes with the package, to edit it."""

import argparse
from pathlib import Path

from jaxvision.errors import UserError, unknown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", help="copy")
    parser.add_argument("name", help="of `jaxvision info configs`, such as digits")
    parser.add_argument("destination", nargs="?", default=".", help="file or folder (default: .)")


def run(options: argparse.Namespace, overrides: dict[str, str]) -> None:
    from jaxvision import config_files
    from jaxvision.train.writers import write_atomically

    if options.action != "copy":
        raise unknown("action", options.action, ["copy"])
    if overrides:
        raise UserError("config copy takes no --config.KEY; edit the copy.")
    source = config_files.find(options.name)
    target = Path(options.destination).expanduser()
    if target.is_dir():
        target /= source.name
    if target.suffix != ".py":
        raise UserError(f"{target} is neither a folder nor a file that ends in .py.")
    if target.exists():
        raise UserError(f"{target} is there already; name another file.")
    write_atomically(target, source.read_text())
    print(f"Wrote {target}. Train: jaxvision train --config {target}")
