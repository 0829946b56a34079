"""GANs beside PyTorch: a training step of both networks, and images of latents.

    python benchmarks/adversarial.py [--only NAME ...] [--torch PYTHON] [--json FILE]
        [--passes images training] [--batches 1 8] [--batch 64] [--size N] [--repeat 10]

As benchmarks/training_step.py: the sides are ours, and PyTorch eager, channels-last and compiled.
Images of the same latents and noise must agree, and the discriminator's losses of two steps as
means of batches do. StyleGAN2 in PyTorch is basicsr's: `PYTHONPATH` must have its folder.
"""

from typing import Any

from adversarial_steps import PAIRS
from report import save
from steps import FLAX
from training_step import (
    about,
    arguments,
    by_pass,
    has_torch,
    measure,
    show,
    sides_of,
)

TOLERANCE = {"images": 1e-3, "training": 0.1}


def markdown(result: dict[str, Any]) -> str:
    """The section of docs/benchmarks.md."""
    return by_pass(result, {name: one.title for name, one in PAIRS.items()})


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], PAIRS)
    parser.add_argument("--passes", nargs="+", choices=TOLERANCE, default=list(TOLERANCE))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8], help="of images")
    parser.add_argument("--batch", type=int, default=64, help="of training")
    options = parser.parse_args()
    sides = [s for s in sides_of(has_torch(options.torch), options.sides) if s != FLAX]
    rows = []
    for name in options.only or PAIRS:
        size = options.size or PAIRS[name].size
        for kind in options.passes:
            train = kind == "training"
            for batch in [options.batch] if train else options.batches:
                row = measure(
                    *(name, sides, options, train, batch, size),
                    script="adversarial_steps.py",
                    tolerance=TOLERANCE[kind],
                )
                rows.append({**row, "pass": kind})
                show(rows[-1])
                save(options.json, "adversarial", rows, about(rows), dtype=options.dtype)


if __name__ == "__main__":
    main()
