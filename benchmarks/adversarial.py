"""GANs beside PyTorch: a training step of both networks, and images of latents.

    python benchmarks/adversarial.py [--only NAME ...] [--torch PYTHON] [--json FILE]
        [--passes images training] [--batches 1 8] [--batch 64] [--size N] [--repeat 10]

As benchmarks/training_step.py: the sides are ours, and PyTorch eager, channels-last and compiled.
Images of the same latents and noise must agree, and the discriminator's losses of two steps as
means of batches do. StyleGAN2 in PyTorch is basicsr's: `PYTHONPATH` must have its folder.
"""

from typing import Any

from adversarial_steps import PAIRS
from training_step import arguments, by_pass, compare_passes

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
    cases = [
        (name, kind, batch, options.size or PAIRS[name].size)
        for name in options.only or PAIRS
        for kind in options.passes
        for batch in ([options.batch] if kind == "training" else options.batches)
    ]
    compare_passes(options, "adversarial", cases, TOLERANCE)


if __name__ == "__main__":
    main()
