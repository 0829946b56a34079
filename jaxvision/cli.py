"""The `jaxvision` command: its parser; what it does is in `jaxvision/commands/`."""

import argparse
import errno
import io
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from typing import NoReturn

from jaxvision import __version__
from jaxvision.commands import COMMANDS
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
    for output in (sys.stdout, sys.stderr):
        if isinstance(output, io.TextIOWrapper):  # names of files need not be valid text
            output.reconfigure(errors="backslashreplace")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    logging.getLogger("absl").setLevel(logging.ERROR)
    traceback = "--traceback" in arguments or bool(os.environ.get("JAXVISION_TRACEBACK"))
    try:
        run([a for a in arguments if a != "--traceback"])
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
    errno.ENAMETOOLONG: "The name is too long for this file system",
    errno.ELOOP: "The links go round in a circle",
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

    for name, module in COMMANDS.items():
        text = (module.__doc__ or name).splitlines()[0].rstrip(".")
        sub = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        sub.set_defaults(run=module.run)
        sub.epilog = _OVERRIDES
        module.add_arguments(sub)
    return parser


def run(command: str | Sequence[str]) -> None:
    """Runs one command, in a notebook or a script of one's own.

    Args:
      command: what follows `jaxvision` in a terminal: a line, or its arguments.

    Raises:
      UserError: bad input.
    """
    try:
        arguments = shlex.split(command) if isinstance(command, str) else list(command)
    except ValueError as error:
        raise UserError(f"The line {command!r} cannot be split: {error}.") from error
    name = next((a for a in arguments if not a.startswith("-")), None)
    if name is not None and name not in COMMANDS:
        raise unknown("command", name, COMMANDS)
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
