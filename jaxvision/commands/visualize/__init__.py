"""Draw what a network sees: filters, maps, saliency, Grad-CAM, attention, patches, mistakes.

    jaxvision visualize filters --model alexnet --pretrained
    jaxvision visualize grad-cam --workdir runs/fashion_mnist boots.png
    jaxvision visualize patches --workdir runs/fashion_mnist --layer layer2_0 --channels 0,5
    jaxvision visualize misclassified --workdir runs/fashion_mnist --output mistakes.png

Every call writes one picture. docs/analysis.md shows them.
"""

import argparse
from pathlib import Path

from jaxvision.commands import source
from jaxvision.commands.visualize.kinds import KINDS
from jaxvision.errors import UserError

__all__ = ["KINDS", "add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    for name, kind in KINDS.items():
        sub = kinds.add_parser(name, help=kind.help, description=kind.help, allow_abbrev=False)
        source.add_arguments(sub)
        sub.add_argument("--output", default=f"{name}.png", help=f"default {name}.png")
        for add_to in kind.arguments:
            add_to(sub)


def run(options: argparse.Namespace, overrides: dict[str, str]) -> None:
    from PIL import Image

    output = Path(options.output)
    if output.suffix.lower() != ".png":
        raise UserError(f"--output={options.output} must end in .png.")
    draw = KINDS[options.kind].drawing()
    picture, message = draw(options, source.open_run(options, overrides))
    output.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(output, optimize=True)
    print(f"{message} Wrote {output}")
