"""Panoptic quality as panopticapi gives it, of perturbed copies of COCO's own files.

    git clone https://github.com/cocodataset/panopticapi  # commit 7bb4655
    python tests/parity/panoptic.py --panopticapi panopticapi --data DIR

writes tests/parity/panoptic.json, which tests/metrics/test_panoptic.py compares with. `DIR` has the
files that are named in `DATA`. It needs no PyTorch.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from parity.deterministic import _uniform

GOLDEN = Path(__file__).parent / "panoptic.json"
# name: the JSON file without suffix, beside which the PNGs lie in a folder; images of it
DATA = {
    "sample": ("panoptic_sample/panoptic_examples", 2),
    "val2017": ("coco128_val/panoptic_segmentation/annotations/panoptic_val2017", 20),
}


def perturbed(numbers: np.ndarray, segments: list[dict[str, Any]], seed: int, classes: list[int]):
    """(numbers, category of each) of a copy that is shifted, with segments that are of other
    classes, void, or split.

    Args:
      numbers: [h, w] of segments.
      segments: their `segments_info`.
      seed: decides what happens to which.
      classes: ids of all categories.
    """
    chance = (_uniform(f"panoptic {seed}", (len(segments), 4)) + 1) / 2
    copy, count = np.zeros_like(numbers), len(segments)
    for place, one in enumerate(segments, start=1):
        copy[numbers == one["id"]] = place
    copy = np.roll(copy, (1 + seed % 5, 2 + seed % 7), (0, 1))
    void, split = (np.flatnonzero(chance[:, k] < share) + 1 for k, share in ((2, 0.2), (3, 0.3)))
    copy[np.isin(copy, void)] = 0
    right = copy[:, copy.shape[1] // 2 :]
    right[np.isin(right, split)] += count
    category = {}
    for place, one in enumerate(segments):
        other = classes[int(len(classes) * chance[place, 1])]
        for number in (place + 1, place + 1 + count):
            category[number] = other if chance[place, 0] < 0.2 else one["category_id"]
    return copy, {number: category[number] for number in np.unique(copy[copy > 0]).tolist()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--panopticapi", required=True, help="a clone of it")
    parser.add_argument("--data", type=Path, required=True, help="folder with the data")
    options = parser.parse_args()
    sys.path.insert(0, options.panopticapi)
    from panopticapi.evaluation import pq_compute_single_core
    from panopticapi.utils import rgb2id

    found = {}
    for name, (stem, images) in DATA.items():
        folder = options.data / stem
        content = json.loads(folder.with_suffix(".json").read_text())
        categories = {one["id"]: one for one in content["categories"]}
        with tempfile.TemporaryDirectory() as copies:
            pairs = []
            for seed, annotation in enumerate(content["annotations"][:images]):
                pixels = np.asarray(Image.open(folder / annotation["file_name"]), np.uint32)
                numbers, seen = rgb2id(pixels).astype(int), annotation["segments_info"]
                copy, category = perturbed(numbers, seen, seed, sorted(categories))
                colours = np.stack([copy & 255, copy >> 8, np.zeros_like(copy)], -1)
                image = Image.fromarray(colours.astype(np.uint8))
                image.save(Path(copies, annotation["file_name"]))
                segments = [{"id": k, "category_id": v} for k, v in category.items()]
                pairs.append((annotation, {**annotation, "segments_info": segments}))
            stat = pq_compute_single_core(0, pairs, str(folder), copies, categories)
        found[name] = {
            part: {k: float(v) for k, v in stat.pq_average(categories, thing)[0].items()}
            for part, thing in (("", None), ("_things", True), ("_stuff", False))
        }
        found[name]["classes"] = {
            number: {key: float(value) for key, value in scores.items()}
            for number, scores in stat.pq_average(categories, None)[1].items()
            if (one := stat[number]).tp + one.fp + one.fn
        }
    GOLDEN.write_text(json.dumps(found) + "\n")
    print(f"Wrote {GOLDEN}, {GOLDEN.stat().st_size} bytes")


if __name__ == "__main__":
    main()
