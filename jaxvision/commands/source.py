"""Which network a command works with: the options, and what they mean."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from jaxvision.errors import UserError

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from jaxvision.train.inference import Origin


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A run; or a config file with weights; or a network with published weights."""
    parser.add_argument("--workdir", help="folder of a run")
    parser.add_argument("--checkpoint", default="best", help="best (default), latest or a step")
    parser.add_argument("--config", metavar="FILE[:VARIANT]", help="config file, with --weights")
    parser.add_argument("--model", help="network to use with published weights, e.g. resnet50")
    parser.add_argument("--pretrained", action="store_true", help="its default weights")
    parser.add_argument(
        "--weights", help="file (.safetensors, .pth, .pt, .th), tag (tv_in1k) or Hub name"
    )


def source(options: argparse.Namespace, overrides: dict[str, str]) -> "tuple[ConfigDict, Origin]":
    """The configuration, and where the weights are.

    Raises:
      UserError: none of the three is given, or more than one.
    """
    from jaxvision import config as configuration
    from jaxvision.train.inference import Origin, published_config, stored_config

    if options.workdir and not (options.config or options.weights or options.model):
        workdir = Path(options.workdir)
        return stored_config(workdir, overrides), Origin(workdir, options.checkpoint)
    weights = options.weights or ("default" if options.pretrained else "")
    if weights and options.config and not (options.workdir or options.model):
        return configuration.load(options.config, overrides), Origin(weights=weights)
    if weights and options.model and not (options.workdir or options.config):
        return published_config(options.model, weights, overrides), Origin(weights=weights)
    raise UserError(
        "Give one of --workdir; --config and --weights; --model and --pretrained or --weights."
    )
