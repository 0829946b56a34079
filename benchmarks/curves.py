"""Plots a validation metric of several runs against the step; needs matplotlib.

python benchmarks/curves.py OUT.png WORKDIR [WORKDIR ...] [--metric accuracy]
"""

import argparse
from pathlib import Path

import matplotlib

from jaxvision.train.writers import read_metrics

matplotlib.use("Agg")
from matplotlib import pyplot


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("workdirs", type=Path, nargs="+")
    parser.add_argument("--metric", default="accuracy")
    options = parser.parse_args()
    figure, axes = pyplot.subplots(figsize=(6, 3.2), layout="constrained")
    for workdir in options.workdirs:
        records = read_metrics(workdir / "metrics.jsonl")
        points = [(r["step"], r[options.metric]) for r in records if r["split"] == "validation"]
        axes.plot(*zip(*points), marker="o", label=f"{workdir.name}: {points[-1][1]:.4f}")
    axes.set(xlabel="step", ylabel=f"validation {options.metric}")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(options.out, dpi=110)


if __name__ == "__main__":
    main()
