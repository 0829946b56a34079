"""Image files below a folder, found the same way by training and by prediction."""

import os
from collections.abc import Iterator
from pathlib import Path

from jaxvision.errors import UserError

VOLUME_SUFFIX = ".npy"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
# What macOS puts into archives and network drives beside photographs: copies that are no images.
_NOT_OURS = ("__MACOSX", "@eaDir")


def hidden(name: str) -> bool:
    """Whether a file or folder of this name is not the user's own."""
    return name.startswith(".") or name in _NOT_OURS


def is_image(name: str) -> bool:
    """Whether a file of this name is an image or a volume."""
    return name.lower().endswith((*IMAGE_SUFFIXES, VOLUME_SUFFIX)) and not hidden(name)


def images_below(folder: Path) -> list[Path]:
    """Image files in a folder and below, sorted; linked folders are followed, hidden ones not.

    Raises:
      UserError: a folder cannot be read.
    """
    return sorted(walk(folder))


def has_image(folder: Path) -> bool:
    """Whether there is an image in a folder or below.

    Raises:
      UserError: a folder cannot be read.
    """
    return next(walk(folder), None) is not None


def walk(folder: Path) -> Iterator[Path]:
    """Image files in a folder, hidden or not, and below, in any order.

    A link back to a folder that it lies in is not followed.

    Raises:
      UserError: a folder cannot be read.
    """
    yield from _walk(folder, frozenset(map(_identity, folder.resolve().parents)))


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _walk(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    try:
        here = _identity(folder)
        entries = [] if here in above else list(os.scandir(folder))
    except OSError as error:
        raise UserError(f"Cannot read the folder {folder}: {error.strerror or error}.") from error
    for entry in entries:
        if entry.is_dir():
            if not hidden(entry.name):
                yield from _walk(Path(entry.path), above | {here})
        elif is_image(entry.name):
            yield Path(entry.path)
