"""Time of selective search beside the package `selectivesearch`, and recall beside random boxes.

    python benchmarks/selective_search.py time [--repeats N]
    python benchmarks/selective_search.py recall --config FILE[:VARIANT] [--config.KEY=VALUE ...]

`time` takes scikit-image's `astronaut` at 320x240 and 96x96 pixels. The mode `single` and the
package, with the package's defaults, take turns in one process, and must find the same regions;
`fast` is timed alone. It needs `pip install selectivesearch==0.4`. `recall` looks at the training
split. Results stay in selective_search.json, from which tables of docs/detection.md are written.
"""

import argparse
import json
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import report

from jaxvision.classical.selective_search import regions, selective_search
from jaxvision.metrics.detection import proposal_recall

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "selective_search.json"
PAGE = ROOT / "docs" / "detection.md"
SIZES = ((320, 240), (96, 96))
COUNTS = (10, 50, 100, 300, 1000)


def seconds_of(call: Any) -> tuple[float, Any]:
    begin = time.perf_counter()
    found = call()
    return time.perf_counter() - begin, found


def measure_time(repeats: int) -> dict[str, Any]:
    from selectivesearch import selective_search as package
    from skimage import data

    warnings.simplefilter("ignore")  # the package's patterns of floating-point images
    rows: dict[str, Any] = {"machine": report.machine(), "repeats": repeats}
    for size in SIZES:
        image = cv2.resize(data.astronaut(), size, interpolation=cv2.INTER_AREA)
        calls = {
            "single": lambda image=image: regions(image),
            "package": lambda image=image: package(image)[1],
            "fast": lambda image=image: selective_search(image),
        }
        taken: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(repeats + 1):
            found = {}
            for name, call in calls.items():
                seconds, found[name] = seconds_of(call)
                taken[name].append(seconds)
            same = [one["size"] for one in found["package"]] == found["single"].sizes.tolist()
            assert same, "the two sides find different regions"
        times = {name: round(median(values[1:]), 4) for name, values in taken.items()}
        ratio = median(t / o for t, o in zip(taken["package"][1:], taken["single"][1:]))
        rows["x".join(map(str, size))] = {
            **times, "ratio": round(ratio, 2), "regions": len(found["package"]),
            "boxes": len(found["fast"]),
        }  # fmt: skip
    return rows


def measure_recall(config: str, overrides: dict[str, str]) -> dict[str, Any]:
    from jaxvision.data.stream import open_stream
    from jaxvision.tasks import configuration

    data = configuration.load(config, overrides).data
    stream = open_stream(data, data.train, seed=0, train=False, annotations=("instances",))
    proposals, chance, objects = [], [], []
    seconds = 0.0
    rng = np.random.default_rng(0)
    for index in range(stream.order.count):
        record = stream[index]
        taken, found = seconds_of(
            lambda record=record: selective_search(record["image"], min_side=8)
        )
        seconds += taken
        proposals.append(found)
        height, width = record["image"].shape[:2]
        corners = np.sort(rng.random((COUNTS[-1], 2, 2)), 1) * [width, height]
        chance.append(corners.reshape(-1, 4))
        objects.append(record["boxes"][record["box_valid"] & ~record["box_crowd"]])
    return {
        "images": len(proposals),
        "objects": int(sum(map(len, objects))),
        "boxes": round(float(np.mean([len(found) for found in proposals])), 1),
        "seconds": round(seconds / len(proposals), 3),
        "recall": proposal_recall(proposals, objects, COUNTS),
        "random": proposal_recall(chance, objects, COUNTS),
    }


def tables(results: dict[str, Any]) -> str:
    lines = []
    if "time" in results:
        lines += [
            "| photograph | `single` | package | ratio | `fast` |", "|---|---|---|---|---|",
        ]  # fmt: skip
        for size in ("x".join(map(str, s)) for s in SIZES):
            row = results["time"][size]
            lines.append(
                f"| {size} | {row['single']:.3f} s | {row['package']:.3f} s | {row['ratio']:.1f} x "
                f"| {row['fast']:.3f} s, {row['boxes']} boxes |"
            )
        lines.append("")
    rows = results.get("recall", {})
    if rows:
        counts = "".join(f" {count} |" for count in COUNTS)
        lines += [f"| recall at IoU 0.5 of the first |{counts} boxes an image |",
                  "|---|" + "---|" * (len(COUNTS) + 1)]  # fmt: skip
        for name, row in sorted(rows.items()):
            for side, title in (("recall", name), ("random", f"{name}, random boxes")):
                values = "".join(f" {row[side][str(count)]:.3f} |" for count in COUNTS)
                size = f"{row['boxes']:.0f}" if side == "recall" else str(COUNTS[-1])
                lines.append(f"| {title} |{values} {size} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("time", "recall"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--config", help="recall: config file of detection")
    parser.add_argument("--name", help="recall: of the data, in the table")
    options, rest = parser.parse_known_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if options.what == "time":
        results["time"] = measure_time(options.repeats)
    else:
        overrides = dict(one.removeprefix("--config.").split("=", 1) for one in rest)
        row = measure_recall(options.config, overrides)
        results.setdefault("recall", {})[options.name or options.config] = row
    text = json.dumps(results, indent=2)
    RESULTS.write_text(text + "\n")
    begin, end = "<!-- proposals -->\n", "<!-- end of proposals -->"
    page = PAGE.read_text()
    before, after = page.split(begin)[0], page.split(end)[1]
    PAGE.write_text(f"{before}{begin}\n{tables(json.loads(text))}\n{end}{after}")


if __name__ == "__main__":
    main()
