"""Draw new images from a trained generator: files, and all of them in one picture.

    jaxvision sample --workdir runs/digits_dcgan --count 64 --seed 0 --output samples

Sample k is decided by the seed and k alone: more samples leave the first ones as they are.
"""

import argparse
from pathlib import Path

from jaxvision.commands import source
from jaxvision.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", required=True, help="folder of a run")
    source.add_checkpoint(parser)
    parser.add_argument("--count", type=int, default=64, help="how many (default 64)")
    parser.add_argument("--seed", type=int, default=0, help="decides them (default 0)")
    parser.add_argument("--output", default="samples", help="folder (default samples)")


def run(options: argparse.Namespace, overrides: dict[str, str]) -> None:
    from PIL import Image

    from jaxvision.data.codecs import encode_png
    from jaxvision.tasks import pictures

    if options.count < 1:
        raise UserError(f"--count={options.count} must be at least 1.")
    if options.seed < 0:
        raise UserError(f"--seed={options.seed} must be at least 0.")
    chosen = source.open_stored(options.workdir, options.checkpoint, overrides)
    images = chosen.sample(options.count, options.seed)
    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        (folder / f"{index:05}.png").write_bytes(encode_png(image))
    Image.fromarray(pictures.grid(images)).save(folder / "grid.png")
    print(f"Wrote {options.count} samples and grid.png to {folder}")
