"""Detectors beside torchvision's and transformers': inference, and a training step.

    python benchmarks/detection.py [--only NAME ...] [--torch PYTHON] [--json FILE]
        [--passes inference training] [--batches 1 8] [--size N] [--repeat 10] [--keep-memory]

As benchmarks/training_step.py: the sides are ours, and PyTorch eager, channels-last and compiled;
the scores found, or the losses of two steps, must agree before anything is timed. What Faster R-CNN
learns from is drawn, by another generator in PyTorch, so its losses are less equal. `PYTHON` needs
a torchvision with compiled operators.
"""

from typing import Any

from detection_steps import DETECTORS
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

TRAINING_BATCH = 2
# Of scores, and of losses where what is learnt from is drawn.
TOLERANCE = {"inference": 1e-2, "training": 5e-2}


def markdown(result: dict[str, Any]) -> str:
    """The section of docs/benchmarks.md."""
    return by_pass(result, {name: one.title for name, one in DETECTORS.items()})


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], DETECTORS)
    parser.add_argument("--passes", nargs="+", choices=TOLERANCE, default=list(TOLERANCE))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8], help="of inference")
    options = parser.parse_args()
    sides = [s for s in sides_of(has_torch(options.torch), options.sides) if s != FLAX]
    rows = []
    for name in options.only or DETECTORS:
        sizes = (options.size,) if options.size else DETECTORS[name].sizes
        for kind in options.passes:
            train = kind == "training"
            for size in sizes[:1] if train else sizes:
                for batch in [TRAINING_BATCH] if train else options.batches:
                    row = measure(
                        *(name, sides, options, train, batch, size),
                        script="detection_steps.py",
                        tolerance=TOLERANCE[kind],
                    )
                    rows.append({**row, "pass": kind})
                    show(rows[-1])
                    save(options.json, "detection", rows, about(rows), dtype=options.dtype)


if __name__ == "__main__":
    main()
