"""Which network a command works with: the options, and what they mean."""

import argparse
import sys
from typing import TYPE_CHECKING

from jaxvision.errors import UserError

if TYPE_CHECKING:
    from jaxvision.runs import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A run; or a config file with weights; or a network with published weights."""
    parser.add_argument("--workdir", help="folder of a run")
    add_checkpoint(parser)
    parser.add_argument("--config", metavar="FILE[:VARIANT]", help="config file, with --weights")
    parser.add_argument("--model", help="network to use with published weights, e.g. resnet50")
    parser.add_argument("--pretrained", action="store_true", help="its default weights")
    parser.add_argument(
        "--weights", help="file (.safetensors, .pth, .pt, .th), tag (tv_in1k) or Hub name"
    )


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint",
        default="tested",
        help="tested (default: the best by validation where that is another split than the test, "
        "else the latest), best, latest or a step",
    )


def open_run(options: argparse.Namespace, overrides: dict[str, str]) -> "Run":
    """The network that the options name.

    Raises:
      UserError: none of the three is given, or more than one.
    """
    from jaxvision import runs
    from jaxvision.tasks import configuration

    if options.workdir and not (options.config or options.weights or options.model):
        return open_stored(options.workdir, options.checkpoint, overrides)
    weights = options.weights or ("default" if options.pretrained else "")
    if weights and options.config and not (options.workdir or options.model):
        return runs.with_weights(configuration.load(options.config, overrides), weights)
    if weights and options.model and not (options.workdir or options.config):
        return runs.published(options.model, weights, overrides)
    raise UserError(
        "Give one of --workdir; --config and --weights; --model and --pretrained or --weights."
    )


def open_stored(workdir: str, checkpoint: str, overrides: dict[str, str] | None = None) -> "Run":
    """The run in a folder; says which checkpoint it is.

    Raises:
      UserError: there is no run or no such checkpoint, or an override is wrong.
    """
    from jaxvision import runs

    found = runs.open(workdir, checkpoint, overrides)
    print(f"{workdir}: checkpoint of step {found.step}", file=sys.stderr)
    return found
