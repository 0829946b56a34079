"""A training step of self-supervised methods beside PyTorch: MAE and DINO on ViT-S/16.

    python benchmarks/pretraining.py [--only NAME ...] [--torch PYTHON] [--json FILE]
        [--batch 4] [--size 224] [--repeat 10]

As benchmarks/training_step.py. PyTorch's sides are transformers' ViTMAEForPreTraining, and timm's
ViT under the heads and the loss of facebookresearch/dino. Masks and views are given; DINO has two
global views of the size and four local ones of three sevenths of it. The losses of two steps must
be the same before anything is timed.
"""

from typing import Any

from pretraining_steps import METHODS
from training_step import arguments, by_pass, compare_passes

TOLERANCE = {"training": 2e-3}


def markdown(result: dict[str, Any]) -> str:
    """The section of docs/benchmarks.md."""
    return by_pass(result, METHODS)


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], METHODS)
    parser.add_argument("--batch", type=int, default=4)
    options = parser.parse_args()
    size = options.size or 224
    cases = [(name, "training", options.batch, size) for name in options.only or METHODS]
    compare_passes(options, "pretraining", cases, TOLERANCE)


if __name__ == "__main__":
    main()
