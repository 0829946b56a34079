"""The data of benchmarks/loader.py: photographs as files and as ArrayRecord, arrays in memory."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

COUNT = 256
RECORDS = "photographs"  # the TFDS data set


def make_photographs(folder: Path) -> None:
    """COUNT seeded JPEG files of quality 90, in `folder/train/photo`."""
    from PIL import Image
    from skimage.data import astronaut
    from sklearn.datasets import load_sample_images

    photographs = [*load_sample_images().images, astronaut()]
    target = folder / "train" / "photo"
    target.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(COUNT):
        photograph = Image.fromarray(photographs[index % len(photographs)])
        width, height = (int(rng.normal(mean, 20)) for mean in (500, 375))
        part = rng.uniform(0.6, 1.0) * min(photograph.width / width, photograph.height / height)
        left = rng.uniform(0, photograph.width - part * width)
        top = rng.uniform(0, photograph.height - part * height)
        box = (left, top, left + part * width, top + part * height)
        pixels = np.asarray(photograph.resize((width, height), Image.Resampling.BICUBIC, box=box))
        noisy = np.clip(pixels + rng.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(target / f"{index:04}.jpg", quality=90)


def make_records(folder: Path, scratch: Path) -> None:
    """The files of `folder` as a TFDS data set below `scratch`, ArrayRecord, by TFDS alone."""
    import tensorflow_datasets as tfds
    from etils import epath

    class Photographs(tfds.core.GeneratorBasedBuilder):
        name = RECORDS
        code_path = epath.Path(__file__)
        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> Any:
            features = {
                "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
                "label": tfds.features.ClassLabel(names=classes_of(folder)),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            del dl_manager
            return {"train": self._generate_examples()}

        def _generate_examples(self) -> Iterator[tuple[str, dict[str, Any]]]:
            for path in files_of(folder):
                class_name = path.relative_to(folder / "train").parts[0]
                yield str(path), {"image": str(path), "label": class_name}

    tfds.disable_progress_bar()
    builder = Photographs(data_dir=str(scratch / "tfds"), file_format="array_record")
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare()


def make_arrays(scratch: Path) -> None:
    """60,000 images of 28x28 pixels in the form of MNIST's files."""
    import struct

    rng = np.random.default_rng(0)
    idx = scratch / "idx"
    idx.mkdir()
    for kind, shape in (("images-idx3", (60_000, 28, 28)), ("labels-idx1", (60_000,))):
        header = bytes((0, 0, 8, len(shape))) + struct.pack(f">{len(shape)}I", *shape)
        values = rng.integers(0, 10, shape, np.uint8)
        (idx / f"train-{kind}-ubyte").write_bytes(header + values.tobytes())


def files_of(folder: Path) -> list[Path]:
    files = sorted(p for p in (folder / "train").rglob("*") if p.is_file())
    if not files:
        raise FileNotFoundError(f"no files below {folder / 'train'}")
    return files


def classes_of(folder: Path) -> list[str]:
    return sorted(p.name for p in (folder / "train").iterdir() if p.is_dir())
