"""Write a network's weights as a safetensors file that its PyTorch reference loads."""

import argparse

from jaxvision.commands import source
from jaxvision.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("output", help="file to write, ends in .safetensors")
    parser.add_argument("--workdir", help="folder of a run")
    source.add_checkpoint(parser)
    parser.add_argument("--model", help="name of a network, with --weights")
    parser.add_argument(
        "--weights", default="default", help="file, tag or Hub name (default: default)"
    )


def run(options: argparse.Namespace, overrides: dict[str, str]) -> None:
    from jaxvision import models, pretrained
    from jaxvision.interop import torch_weights

    if overrides:
        raise UserError("export-torch takes no --config.KEY.")
    if bool(options.workdir) == bool(options.model):
        raise UserError("Give either --workdir, or --model and --weights.")
    if options.workdir:
        chosen = source.open_stored(options.workdir, options.checkpoint)
        name, variables = chosen.config.model.name, chosen.variables
    else:
        name = options.model
        _, variables = pretrained.create(name, options.weights)
    entry = models.variant(name)
    torch_weights.save(options.output, variables, entry.export)
    count = len(torch_weights.torch_shapes(variables))
    print(f"Wrote {count} tensors of {name} to {options.output}. In PyTorch: {entry.reference},")
    print("  network.load_state_dict(safetensors.torch.load_file(FILE), strict=True)")
