"""Detectors beside torchvision's and transformers': inference, and a training step.

    python benchmarks/detection.py [--only NAME ...] [--torch PYTHON] [--json FILE]
        [--passes inference training] [--batches 1 8] [--training-batch 2] [--size N]
        [--repeat 10] [--keep-memory]

As benchmarks/training_step.py: the sides are ours, and PyTorch eager, channels-last and compiled;
the scores found, or the losses of two steps, must agree before anything is timed. What Faster R-CNN
learns from is drawn, by another generator in PyTorch, so its losses are less equal. `PYTHON` needs
a torchvision with compiled operators.
"""

from typing import Any

from detection_steps import DETECTORS
from training_step import arguments, by_pass, compare_passes

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
    parser.add_argument("--training-batch", type=int, default=TRAINING_BATCH)
    options = parser.parse_args()
    cases = []
    for name in options.only or DETECTORS:
        sizes = (options.size,) if options.size else DETECTORS[name].sizes
        for kind in options.passes:
            train = kind == "training"
            batches = [options.training_batch] if train else options.batches
            cases += [
                (name, kind, batch, size)
                for size in sizes[: 1 if train else None]
                for batch in batches
            ]
    compare_passes(options, "detection", cases, TOLERANCE)


if __name__ == "__main__":
    main()
