"""Inference beside PyTorch's: batch 1 (latency) and batch 64 (throughput).

    python benchmarks/inference.py [--only NAME ...] [--torch PYTHON] [--json FILE]
        [--dtype bfloat16] [--batches 1 64] [--size N] [--repeat 10] [--keep-memory]

As benchmarks/training_step.py, with `task.logits` in place of the step: logits must agree before
anything is timed. PyTorch runs in `inference_mode`.
"""

from typing import Any

from networks import NETWORKS
from report import save, table
from steps import FLAX, OURS, TORCH
from training_step import (
    about,
    arguments,
    best_torch,
    has_torch,
    measure,
    on_accelerator,
    rate,
    ratio,
    show,
    sides_of,
)


def markdown(result: dict[str, Any]) -> str:
    """The section of docs/benchmarks.md."""
    lines = []
    for row in result["rows"]:
        latency = 1e3 * row["sides"][OURS]["seconds"] if row["batch"] == 1 else None
        lines.append(
            [
                f"{NETWORKS[row['network']].title}, {row['batch']} x {row['size']} px",
                f"{rate(row, OURS):.1f}",
                *(f"{rate(row, side):.1f}" if rate(row, side) else "" for side in TORCH),
                ratio(rate(row, OURS), best_torch(row)),
                f"{latency:.1f}" if latency else "",
            ]
        )
    named = [f"PyTorch {side.replace('_', '-')}" for side in TORCH]
    head = ["images/s", "ours", *named, "ours / best PyTorch", "ours, ms"]
    return table(head, lines) + f"\n\n{result['dtype']}."


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64])
    options = parser.parse_args()
    sides = [s for s in sides_of(has_torch(options.torch), options.sides) if s != FLAX]
    rows = []
    for name in options.only or NETWORKS:
        network = NETWORKS[name]
        size = options.size or (network.accelerator[1] if on_accelerator() else network.size)
        for batch in options.batches:
            rows.append(measure(name, sides, options, False, batch, size))
            show(rows[-1])
            save(options.json, "inference", rows, about(rows), dtype=options.dtype)


if __name__ == "__main__":
    main()
