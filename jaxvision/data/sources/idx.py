"""The files of MNIST, and records that are arrays in memory."""

import gzip
import math
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxvision.data.facts import Facts
from jaxvision.data.sources.splits import Source
from jaxvision.errors import UserError, unknown


@dataclass(frozen=True)
class Arrays:
    """Records whose images are arrays of one shape, with or without labels, all in memory."""

    images: np.ndarray
    labels: np.ndarray | None
    class_names: tuple[str, ...]
    origin: str = "array"
    facts: Facts = field(default_factory=Facts)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record: dict[str, Any] = {"image": self.images[index]}
        if self.labels is not None:
            record["label"] = int(self.labels[index])
        return record

    def name(self, index: int) -> str:
        return f"{self.origin}[{index}]"


def idx(data: ConfigDict) -> Callable[[str], Source]:
    """the files of MNIST, gzipped or not: DIR/train-images-idx3-ubyte.gz, ..."""
    root = Path(data.dir).expanduser()
    return lambda split: idx_files(root, split, data.classes)


_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_IDX_SPLITS = {"train": "train", "test": "t10k"}


def read_idx(path: Path) -> np.ndarray:
    """Reads an idx file (the MNIST format, http://yann.lecun.com/exdb/mnist/), gzipped or not.

    Raises:
      UserError: not an idx file, or its length does not fit its header.
    """
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"Cannot read {path}: {error}") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _IDX_TYPES:
        raise UserError(f"{path} is not an idx file: it starts with {data[:4]!r}.")
    dtype, rank = np.dtype(_IDX_TYPES[data[2]]), data[3]
    header = 4 + 4 * rank
    if len(data) < header:
        raise UserError(f"{path} is truncated inside its header.")
    shape = struct.unpack(f">{rank}I", data[4:header])
    expected = header + math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise UserError(f"{path} has {len(data)} bytes, its header {shape} asks for {expected}.")
    return np.frombuffer(data, dtype, offset=header).reshape(shape)


def idx_files(root: Path, split: str, class_names: Sequence[str] = ()) -> Arrays:
    """`train-images-idx3-ubyte[.gz]` and its labels; split `test` is the t10k pair.

    Raises:
      UserError: a file is missing or damaged, or the two disagree in length.
    """
    if split not in _IDX_SPLITS:
        raise unknown("split of idx files", split, _IDX_SPLITS)

    def find(kind: str) -> Path:
        stem = f"{_IDX_SPLITS[split]}-{kind}-ubyte"
        for name in (stem, stem + ".gz", stem.replace("-idx", ".idx")):
            if (root / name).is_file():
                return root / name
        raise UserError(f"No {stem}[.gz] in {root or '.'}. Set --config.data.dir.")

    images, labels = read_idx(find("images-idx3")), read_idx(find("labels-idx1"))
    grey_or_colour = images.ndim == 3 or (images.ndim == 4 and images.shape[-1] in (1, 3))
    if images.dtype != np.uint8 or not grey_or_colour:
        raise UserError(
            f"{root}: images of {split} are {images.dtype} {list(images.shape)}; expected uint8 "
            "[count, height, width] or [count, height, width, 1 or 3]."
        )
    if labels.dtype.kind not in "ui" or labels.ndim != 1:
        raise UserError(f"{root}: labels of {split} are {labels.dtype} {list(labels.shape)}.")
    if len(images) != len(labels):
        raise UserError(f"{root}: {len(images)} images but {len(labels)} labels in {split}.")
    names = tuple(class_names) or tuple(str(i) for i in range(int(labels.max(initial=0)) + 1))
    images = images[..., None] if images.ndim == 3 else images
    return Arrays(images, labels, names, origin=str(root / split))
