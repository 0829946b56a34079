"""Turns CIFAR-10 kept as PNG strips (a row an image) into the image folder that configs read.

    python tests/cifar10_strips.py STRIPS OUT

STRIPS holds `cifar10_batch_<n>.png` (1000 rows of 1024 RGB pixels) and `cifar10_labels.js`, as
https://github.com/PeterJensen/cnn has them; batches 0 to 49 are training, 50 on are test images.
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def convert(strips: Path, out: Path) -> int:
    """Writes `out/{train,test}/<class>/<index>.png`; returns how many images."""
    text = (strips / "cifar10_labels.js").read_text()
    labels = json.loads(text[text.index("[") : text.rindex("]") + 1])
    count = 0
    for path in sorted(strips.glob("cifar10_batch_*.png")):
        batch = int(path.stem.rsplit("_", 1)[1])
        images = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 32, 32, 3)
        for offset, image in enumerate(images):
            index = 1000 * batch + offset
            folder = out / ("test" if batch >= 50 else "train") / CLASSES[labels[index]]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{index:05d}.png")
            count += 1
    return count


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print(f"{convert(Path(sys.argv[1]), Path(sys.argv[2]))} images written to {sys.argv[2]}")
