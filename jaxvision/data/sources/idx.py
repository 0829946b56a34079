"""The files of MNIST, and records that are arrays in memory."""

import gzip
import math
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

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
_IDX_RANK = 4
_DEFLATE = 1032  # what a byte can stand for in a gzipped file, at most
_MOST_CLASSES = 65535  # that labels alone may claim
_IDX_SPLITS = {"train": "train", "test": "t10k"}


def read_idx(path: Path) -> np.ndarray:
    """Reads an idx file (the MNIST format, http://yann.lecun.com/exdb/mnist/), gzipped or not.

    Raises:
      UserError: not an idx file, or its length does not fit its header; found out before memory is
        reserved.
    """
    try:
        length = path.stat().st_size
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else path.open("rb") as file:
            shape, dtype, start = _idx_header(file, path)
            expected = start + math.prod(shape) * dtype.itemsize
            if expected > _DEFLATE * length if zipped else expected != length:
                raise UserError(
                    f"{path} has {length} bytes, its header {shape} asks for {expected}."
                )
            data = file.read(expected - start + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"Cannot read {path}: {error}") from error
    if start + len(data) != expected:
        have = "more" if start + len(data) > expected else start + len(data)
        raise UserError(f"{path} unpacks to {have} bytes, its header {shape} asks for {expected}.")
    return np.frombuffer(data, dtype).reshape(shape)


def _idx_header(
    file: IO[bytes] | gzip.GzipFile, path: Path
) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape and type of an idx file's values, and where they start.

    Raises:
      UserError: not an idx file.
    """
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _IDX_TYPES:
        raise UserError(f"{path} is not an idx file: it starts with {magic!r}.")
    rank = magic[3]
    if not 1 <= rank <= _IDX_RANK:
        raise UserError(f"{path} declares {rank} dimensions; expected 1 to {_IDX_RANK}.")
    sides = file.read(4 * rank)
    if len(sides) < 4 * rank:
        raise UserError(f"{path} is truncated inside its header.")
    return struct.unpack(f">{rank}I", sides), np.dtype(_IDX_TYPES[magic[2]]), 4 + 4 * rank


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
    if images.size == 0:
        raise UserError(f"{root}: images of {split} are {list(images.shape)}; none has a pixel.")
    if not class_names and labels.max(initial=0) >= _MOST_CLASSES:
        raise UserError(
            f"{root}: a label of {split} is {labels.max()}; set data.classes if there are so many."
        )
    names = tuple(class_names) or tuple(str(i) for i in range(int(labels.max(initial=0)) + 1))
    images = images[..., None] if images.ndim == 3 else images
    return Arrays(images, labels, names, origin=str(root / split))
