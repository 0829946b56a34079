"""DDPM's U-Net beside diffusers: images of the same noise by DDIM, and a training step.

    python benchmarks/diffusion.py [--only NAME ...] [--torch PYTHON] [--json FILE]
        [--passes sampling training] [--batches 1 16] [--batch 16] [--repeat 10]

As benchmarks/training_step.py: the sides are ours, and diffusers' network and scheduler in PyTorch
eager, channels-last and compiled. Images of 50 steps of DDIM from the same noise must be the same
but for their last bits, and so must the losses of two steps. Ours makes all steps in one program.
"""

from typing import Any

from diffusion_steps import UNETS
from training_step import arguments, by_pass, compare_passes

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
    cases = [
        (name, kind, batch, options.size or UNETS[name].size)
        for name in options.only or ["half"]
        for kind in options.passes
        for batch in ([options.batch] if kind == "training" else options.batches)
    ]
    compare_passes(options, "diffusion", cases, TOLERANCE)


if __name__ == "__main__":
    main()
