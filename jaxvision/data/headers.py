"""Encoded images opened: their format and declared size are checked before anything is decoded."""

import io
import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from jaxvision.errors import UserError

MAX_PIXELS = 2**29  # 23170 x 23170, 1.5 GiB of colour
NPY = b"\x93NUMPY"
# Others that Pillow reads run programs on the file (EPS) or are no photographs.
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
_TIFF = (b"II*\0", b"MM\0*")


class CorruptImageError(UserError):
    """An image that cannot be read or decoded; `name` says which."""

    def __init__(self, name: str, reason: str):
        super().__init__(f"Cannot read image {name}: {reason}")
        self.name, self.reason = name, reason

    def __reduce__(self):  # exceptions cross process borders by pickling
        return CorruptImageError, (self.name, self.reason)


def check_declared(size: Sequence[int], name: str, limit: int) -> None:
    """Checks the size that a header claims.

    Args:
      size: (height, width), volumes with the depth before and perhaps the channels behind.
      name: named in errors.
      limit: pixels that an image may have.

    Raises:
      CorruptImageError: it is larger.
    """
    pixels = math.prod(size)
    if pixels > limit:
        sides = "x".join(map(str, size[::-1]))
        raise CorruptImageError(
            name,
            f"its header declares {sides} pixels, {3 * pixels / 2**30:.1f} GiB of colour; the "
            f"limit is data.max_image_pixels={limit}. Raise it to {pixels} if it is an image and "
            "memory holds it.",
        )


class _Unlimited:
    """Pillow's own limit of pixels, lifted while any thread is inside: `check_declared` knows ours.

    It is one for the whole process, and outside it stays what the program made it.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._theirs: int | None = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._theirs, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self._inside += 1

    def __exit__(self, *error: Any) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                Image.MAX_IMAGE_PIXELS = self._theirs


_unlimited = _Unlimited()


def open_image(data: bytes, name: str, limit: int = MAX_PIXELS) -> Image.Image:
    """The image in Pillow, its pixels not decoded yet: see `load`.

    Raises:
      CorruptImageError: empty, of unknown format, damaged in its header, or of more pixels than
        `limit`.
    """
    return _opened(io.BytesIO(data), name, limit)


def size_of(data: bytes | Path, name: str, limit: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width) of an encoded image, upright; of a file no more than the header is read.

    Raises:
      CorruptImageError: see `open_image`.
      UserError: it is a volume.
    """
    try:
        with io.BytesIO(data) if isinstance(data, bytes) else data.open("rb") as file:
            if file.read(len(NPY)) == NPY:
                raise UserError(f"{name} is a volume; an image is expected.")
            file.seek(0)
            image = _opened(file, name, limit)
            # Pillow would look for a PNG's behind the pixels.
            turn = orientation(image) if image.format != "PNG" or "exif" in image.info else 1
            if turn > 4 and image.format == "TIFF":  # Pillow turns it with its pixels
                image, turn = load(image, name), 1
            width, height = image.size
    except OSError as error:
        raise CorruptImageError(name, error.strerror or str(error)) from error
    return (width, height) if turn > 4 else (height, width)


def _opened(file: BinaryIO, name: str, limit: int) -> Image.Image:
    head = file.read(30)
    file.seek(0)
    if not head:
        raise CorruptImageError(name, "the file is empty")
    if head[:4] == b"RIFF" and head[12:16] == b"VP8X" and len(head) >= 30:
        # Pillow reserves memory for the canvas when it opens the file.
        width, height = (1 + int.from_bytes(head[at : at + 3], "little") for at in (24, 27))
        check_declared((height, width), name, limit)
    try:
        with _unlimited:
            image = Image.open(file, formats=_FORMATS)
    except UnidentifiedImageError as error:
        reason = "no known image format, or cut off in its header"
        if head[:4] in _TIFF:
            reason = "a TIFF file of a kind of pixels that is not read, or damaged in its header"
        raise CorruptImageError(name, reason) from error
    except MemoryError:
        raise
    except Exception as error:  # on damaged files Pillow raises whatever its parser met
        raise CorruptImageError(name, str(error) or type(error).__name__) from error
    check_declared(image.size[::-1], name, limit)
    return image


def load(image: Image.Image, name: str) -> Image.Image:
    """The opened image with its pixels.

    Raises:
      CorruptImageError: they are cut off or damaged.
    """
    try:
        with _unlimited:
            image.load()
    except MemoryError:
        raise
    except Exception as error:  # on damaged files Pillow raises whatever its parser met
        raise CorruptImageError(name, str(error) or type(error).__name__) from error
    return image


def raw_mode(image: Image.Image) -> str:
    """How samples are stored, in Pillow's words ("L;4", "RGB;16B"); known until they are loaded."""
    tile = getattr(image, "tile", None)
    args = tile[0][3] if tile else ()
    first = args if isinstance(args, str) else args[0] if args else ""
    return first if isinstance(first, str) and first else image.mode


def orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8 of a loaded image; damaged metadata of a sound picture are as none."""
    try:
        found = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return 1
    return found if 1 <= found <= 8 else 1


def read_npy(data: bytes, name: str, limit: int = MAX_PIXELS) -> np.ndarray:
    """The array of a NumPy file, read-only; nothing in it is executed, and nothing is reserved.

    Raises:
      CorruptImageError: damaged, of Python objects, of no or of more entries than `limit`, or its
        length does not fit its header.
    """
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, by_columns, dtype = read(file)
        if dtype.hasobject:
            raise ValueError("it holds Python objects, which need allow_pickle and are not read")
        count = math.prod(shape)
        if min(shape, default=1) < 1 or len(shape) > 8:
            raise ValueError(f"its header declares the shape {shape}")
    except Exception as error:  # on damaged headers NumPy raises whatever its parser met
        reason = str(error) or type(error).__name__
        raise CorruptImageError(name, f"a damaged NumPy file: {reason}") from error
    check_declared(shape, name, limit)
    start = file.tell()
    if len(data) - start != count * dtype.itemsize:
        raise CorruptImageError(
            name,
            f"a NumPy file of {len(data) - start} bytes, whose header {dtype} {list(shape)} asks "
            f"for {count * dtype.itemsize}",
        )
    array = np.frombuffer(data, dtype, offset=start)
    return array.reshape(shape, order="F" if by_columns else "C")
