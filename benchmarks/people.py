"""Gathers the people of COCO files, with their masks, for configs/instances/coco.py:people.

    python benchmarks/people.py --root DIR --output FOLDER
        [--instances IMAGES JSON] [--panoptic IMAGES JSON] ...

IMAGES (a folder) and JSON are below `--root`, which is `data.dir` then. Of a panoptic file each
segment of a person is one, with the box and the crowd flag that the file gives it; its PNGs lie in
the folder of the file's name. An image that several files have is taken of the first. Every fourth
image, by name, is for the test: FOLDER/people_train.json and FOLDER/people_test.json.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as run_lengths

from jaxvision.train.writers import write_atomically

TEST = 4  # one image in so many


def of_instances(root: Path, images: str, file: str) -> Iterator[tuple[dict, list[dict]]]:
    """Each image of a file of instances, and the annotations of its people."""
    content = json.loads((root / file).read_text())
    yield from _of(content, images, content["annotations"])


def of_panoptic(root: Path, images: str, file: str) -> Iterator[tuple[dict, list[dict]]]:
    """The same of a panoptic file."""
    content = json.loads((root / file).read_text())
    pictures = (root / file).with_suffix("")
    segments = []
    for one in content["annotations"]:
        colours = np.asarray(Image.open(pictures / one["file_name"]).convert("RGB"), np.int64)
        numbers = colours @ np.array([1, 256, 256**2])
        for segment in one["segments_info"]:
            encoded = run_lengths.encode(np.asfortranarray(numbers == segment["id"], np.uint8))
            encoded["counts"] = encoded["counts"].decode()
            segments.append({**segment, "image_id": one["image_id"], "segmentation": encoded})
    yield from _of(content, images, segments)


def _of(content: Any, images: str, annotations: list[dict]) -> Iterator[tuple[dict, list[dict]]]:
    (person,) = (one["id"] for one in content["categories"] if one["name"] == "person")
    people: dict[Any, list[dict]] = {}
    for one in annotations:
        if one["category_id"] == person:
            people.setdefault(one["image_id"], []).append(one)
    for image in content["images"]:
        if image["id"] in people:
            named = {**image, "file_name": f"{images}/{image['file_name']}"}
            yield named, people[image["id"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    for kind in ("--instances", "--panoptic"):
        parser.add_argument(kind, nargs=2, action="append", default=[], metavar=("IMAGES", "JSON"))
    options = parser.parse_args()
    found: dict[str, tuple[dict, list[dict]]] = {}
    for read, given in ((of_instances, options.instances), (of_panoptic, options.panoptic)):
        for images, file in given:
            for image, people in read(options.root, images, file):
                found.setdefault(Path(image["file_name"]).name, (image, people))
    options.output.mkdir(parents=True, exist_ok=True)
    records = [found[name] for name in sorted(found)]
    test = records[::TEST]
    train = [record for place, record in enumerate(records) if place % TEST]
    for split, chosen in (("train", train), ("test", test)):
        annotations = [
            {**person, "id": place, "category_id": 1}
            for place, person in enumerate((p for _, people in chosen for p in people), start=1)
        ]
        content = {
            "images": [image for image, _ in chosen],
            "annotations": annotations,
            "categories": [{"id": 1, "name": "person"}],
        }
        path = options.output / f"people_{split}.json"
        write_atomically(path, json.dumps(content))
        print(f"{path}: {len(chosen)} images, {len(annotations)} people")


if __name__ == "__main__":
    main()
