"""Draw new images from a trained generator: files, and all of them in one picture.

    jaxvision sample --workdir runs/digits_dcgan --count 64 --seed 0 --output samples
    jaxvision sample --workdir RUN --count 8 --interpolate 9
    jaxvision sample --workdir RUN --count 8 --walk 30
    jaxvision sample --workdir RUN --count 4 --inpaint photo.png --mask mask.png
    jaxvision sample --config ffhq --weights stylegan2.pth --truncation 0.7 --count 4

Sample k is decided by the seed and k alone: more samples leave the first ones as they are.
`--interpolate` draws a row from each sample to the next, `--walk` a film that visits all of them,
`--inpaint` a photograph with what is white in a mask made anew.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxvision.commands import source
from jaxvision.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from jaxvision.tasks.sampling import Sampling

_MILLISECONDS = 60  # that a picture of a film is shown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source.add_arguments(parser)
    parser.add_argument("--count", type=int, default=64, help="how many (default 64)")
    parser.add_argument("--seed", type=int, default=0, help="decides them (default 0)")
    parser.add_argument("--output", default="samples", help="folder (default samples)")
    parser.add_argument("--classes", help="names or numbers, in turn: coat,bag (default: any)")
    add_settings(parser)
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--interpolate", type=int, metavar="N", help="rows of N images")
    shown.add_argument("--walk", type=int, metavar="N", help="a film, N images to each sample")
    shown.add_argument("--inpaint", metavar="PHOTO", help="photograph to make parts of anew")
    parser.add_argument("--mask", help="with --inpaint: picture that is white where")


def add_settings(parser: argparse.ArgumentParser) -> None:
    """What may be asked of samples."""
    parser.add_argument("--truncation", type=float, default=1.0, help="of latents (default 1)")
    parser.add_argument("--guidance", type=float, help="how much classes are exaggerated")
    parser.add_argument("--steps", type=int, help="of the sampler")
    parser.add_argument("--sampler", default="", help="its name")


def settings_of(options: argparse.Namespace) -> "Sampling":
    """What is asked of samples."""
    from jaxvision.tasks.sampling import Sampling

    return Sampling(options.truncation, options.guidance, options.steps, options.sampler)


def run(options: argparse.Namespace, overrides: dict[str, str]) -> None:
    from jaxvision.runs import sampling

    _check(options)
    chosen = source.open_run(options, overrides)
    names = [name.strip() for name in options.classes.split(",")] if options.classes else []
    about = {
        "seed": options.seed,
        "labels": sampling.labels_of(names, chosen.facts.class_names),
        "settings": settings_of(options),
    }
    folder = Path(options.output)
    if options.inpaint:
        photograph, mask = Path(options.inpaint), Path(options.mask)
        seen, images = sampling.inpaint(chosen, photograph, mask, options.count, **about)
        _write(folder, images, [seen, *images])
    elif options.interpolate or options.walk:
        frames = options.walk or options.interpolate - 1
        ways = sampling.interpolate(chosen, options.count, frames, **about)
        if options.walk:
            _film(folder / "walk.gif", [image for way in ways for image in way])
        else:
            _strips(folder / "interpolation.png", ways)
    else:
        images = sampling.sample(chosen, options.count, **about)
        _write(folder, images, images)


def _check(options: argparse.Namespace) -> None:
    for name, least in (("count", 1), ("seed", 0), ("interpolate", 2), ("walk", 1), ("steps", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise UserError(f"--{name}={value} must be at least {least}.")
    if bool(options.inpaint) != bool(options.mask):
        raise UserError("--inpaint and --mask belong together.")


def _write(folder: Path, images: Any, shown: Any) -> None:
    """A file for each image, and a grid."""
    import numpy as np

    from jaxvision.data.codecs import encode_png
    from jaxvision.tasks import pictures

    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        (folder / f"{index:05}.png").write_bytes(encode_png(image))
    (folder / "grid.png").write_bytes(encode_png(pictures.grid(np.stack(shown))))
    print(f"Wrote {len(images)} samples and grid.png to {folder}")


def _strips(file: Path, ways: "np.ndarray") -> None:
    """A row for each way, which ends with what the next one begins with."""
    import numpy as np

    from jaxvision.data.codecs import encode_png
    from jaxvision.tasks import pictures

    ends = np.roll(ways[:, :1], -1, 0)
    rows = np.concatenate([ways, ends], 1)
    file.parent.mkdir(parents=True, exist_ok=True)
    flat = rows.reshape(-1, *rows.shape[2:])
    file.write_bytes(encode_png(pictures.grid(flat, columns=rows.shape[1])))
    print(f"Wrote {len(rows)} ways of {rows.shape[1]} images to {file}")


def _film(file: Path, images: Any) -> None:
    from PIL import Image

    from jaxvision.tasks import pictures

    first, *others = [Image.fromarray(pictures.as_colour(image)) for image in images]
    file.parent.mkdir(parents=True, exist_ok=True)
    first.save(file, save_all=True, append_images=others, duration=_MILLISECONDS, loop=0)
    print(f"Wrote a film of {len(images)} images to {file}")
