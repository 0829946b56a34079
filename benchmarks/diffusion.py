"""DDPM's U-Net beside diffusers: images of the same noise by DDIM, and a training step.

    python benchmarks/diffusion.py [--only NAME ...] [--torch PYTHON] [--json FILE]
        [--passes sampling training] [--batches 1 16] [--batch 16] [--repeat 10]

As benchmarks/training_step.py: the sides are ours, and diffusers' network and scheduler in PyTorch
eager, channels-last and compiled. Images of 50 steps of DDIM from the same noise must be the same
but for their last bits, and so must the losses of two steps. Ours makes all steps in one program.
"""

from typing import Any

from diffusion_steps import UNETS
from report import save
from steps import FLAX
from training_step import about, arguments, by_pass, has_torch, measure, show, sides_of

TOLERANCE = {"sampling": 2 / 255, "training": 2e-3}  # the former: two levels of a pixel


def markdown(result: dict[str, Any]) -> str:
    """The section of docs/benchmarks.md."""
    return by_pass(result, {name: one.title for name, one in UNETS.items()})


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], UNETS)
    parser.add_argument("--passes", nargs="+", choices=TOLERANCE, default=list(TOLERANCE))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16], help="of sampling")
    parser.add_argument("--batch", type=int, default=16, help="of training")
    options = parser.parse_args()
    sides = [s for s in sides_of(has_torch(options.torch), options.sides) if s != FLAX]
    rows = []
    for name in options.only or ["half"]:
        for kind in options.passes:
            train = kind == "training"
            for batch in [options.batch] if train else options.batches:
                row = measure(
                    *(name, sides, options, train, batch, options.size or UNETS[name].size),
                    script="diffusion_steps.py",
                    tolerance=TOLERANCE[kind],
                )
                rows.append({**row, "pass": kind})
                show(rows[-1])
                save(options.json, "diffusion", rows, about(rows), dtype=options.dtype)


if __name__ == "__main__":
    main()
