"""Image files to arrays: JPEG by libjpeg-turbo, everything else by Pillow.

What comes out is always uint8 with the asked number of channels, upright (EXIF orientation
applied); what cannot be decoded whole is an error that names the file, never a half-grey picture.
"""

import io
from typing import Literal

import numpy as np
import simplejpeg
from PIL import ExifTags, Image, UnidentifiedImageError

from jaxvision.errors import UserError

_JPEG = b"\xff\xd8\xff"
_NPY = b"\x93NUMPY"


class CorruptImageError(UserError):
    """An image that cannot be read or decoded; `name` says which."""

    def __init__(self, name: str, reason: str):
        super().__init__(f"Cannot read image {name}: {reason}")
        self.name, self.reason = name, reason

    def __reduce__(self):  # exceptions cross process borders by pickling
        return CorruptImageError, (self.name, self.reason)


def decode_image(data: bytes, channels: Literal[1, 3] = 3, name: str = "<bytes>") -> np.ndarray:
    """Decodes an encoded image.

    Greyscale becomes colour by repetition, colour becomes grey by ITU-R 601 luma, CMYK and palette
    images are converted, transparency is dropped, 16-bit samples keep their high byte.

    Args:
      data: contents of a JPEG, PNG, BMP, GIF (first frame), TIFF or WebP file; or of a NumPy file
        with a volume of uint8, [depth, height, width] or with the channels as a last axis.
      channels: 3 for RGB, 1 for grey.
      name: named in errors.

    Returns:
      uint8 [height, width, channels], volumes with the depth before.

    Raises:
      CorruptImageError: empty, truncated, damaged or of unknown format.
    """
    if data.startswith(_NPY):
        volume = _volume(data, name)
        volume = volume[..., None] if volume.ndim == 3 else volume
        if volume.shape[-1] != channels:
            raise CorruptImageError(
                name, f"a volume of {volume.shape[-1]} channels, not {channels}"
            )
        return volume
    if data[:3] == _JPEG:
        pixels = _decode_jpeg(data, channels, name)
        if pixels is not None:
            if not _has_exif(data):
                return pixels
            return _upright(pixels, _orientation(_open(data, name, pixels=False)))
    image = _open(data, name)
    orientation = _orientation(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_high_byte(np.asarray(image), name))
    try:
        pixels = np.asarray(image.convert("RGB" if channels == 3 else "L"))
    except ValueError as error:  # colour spaces like LAB
        raise CorruptImageError(name, str(error)) from error
    return _upright(pixels.reshape(*pixels.shape[:2], channels), orientation)


def decode_mask(data: bytes, name: str = "<bytes>") -> np.ndarray:
    """Decodes a mask of class indices: the stored sample values or palette indices, unconverted.

    Returns:
      uint8 [height, width], or int32 for masks of 16 or 32 bits.

    Raises:
      CorruptImageError: undecodable, or a colour image (class indices have one channel).
    """
    if data.startswith(_NPY):
        return _volume(data, name)
    image = _open(data, name)
    if image.mode in ("L", "P"):
        return np.asarray(image)
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8)
    if image.mode.startswith("I"):
        return np.asarray(image).astype(np.int32)
    raise CorruptImageError(
        name, f"a mask has one channel of class indices, this is a {image.mode} image"
    )


def _volume(data: bytes, name: str) -> np.ndarray:
    """uint8 [d, h, w] or [d, h, w, c] of a NumPy file; nothing in it is executed."""
    try:
        volume = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise CorruptImageError(name, str(error)) from error
    if volume.dtype != np.uint8 or volume.ndim not in (3, 4):
        raise CorruptImageError(
            name, f"a volume is uint8 [d, h, w] or [d, h, w, c], this {volume.dtype} {volume.shape}"
        )
    return volume


def encode_png(pixels: np.ndarray) -> bytes:
    """uint8 [h, w], [h, w, 1] or [h, w, 3] to PNG bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels).save(
        buffer, format="PNG"
    )
    return buffer.getvalue()


def _decode_jpeg(data: bytes, channels: int, name: str) -> np.ndarray | None:
    """uint8 [h, w, channels] as stored, or None where Pillow must decode (CMYK, odd sampling)."""
    try:
        colourspace = simplejpeg.decode_jpeg_header(data)[2]
    except ValueError:  # truncated, or a chroma sampling that TurboJPEG has no name for
        return None
    if colourspace in ("CMYK", "YCCK"):
        return None
    wanted = "RGB" if channels == 3 else "GRAY"
    try:
        return simplejpeg.decode_jpeg(data, colorspace=wanted, strict=True)
    except ValueError as error:
        if "extraneous bytes" in str(error):  # between segments; harmless and not rare
            return None
        raise CorruptImageError(name, str(error)) from error


def _has_exif(data: bytes) -> bool:
    """Whether a JPEG has an EXIF segment before its pixels; Pillow takes far longer to say."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        if data[at + 1] == 0xE1 and data[at + 4 : at + 9] == b"Exif\0":
            return True
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return False


def _open(data: bytes, name: str, pixels: bool = True) -> Image.Image:
    if not data:
        raise CorruptImageError(name, "the file is empty")
    try:
        image = Image.open(io.BytesIO(data))
        if pixels:
            image.load()
    except UnidentifiedImageError as error:
        raise CorruptImageError(name, "no known image format, or cut off in its header") from error
    except MemoryError:
        raise
    except Exception as error:  # on damaged files Pillow raises whatever its parser met
        raise CorruptImageError(name, str(error) or type(error).__name__) from error
    return image


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8; damaged metadata of a sound picture are as none."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """EXIF orientation of [h, w, c] applied."""
    turns = {3: 2, 4: 2, 5: 3, 6: 3, 7: 1, 8: 1}.get(orientation, 0)
    turned = np.rot90(pixels, turns)
    if orientation in (2, 4, 5, 7):
        turned = turned[:, ::-1]
    return np.ascontiguousarray(turned)


def _high_byte(samples: np.ndarray, name: str) -> np.ndarray:
    if samples.dtype.kind == "f":
        raise CorruptImageError(name, "floating-point images have no fixed range")
    return (np.clip(samples, 0, 65535).astype(np.uint16) >> 8).astype(np.uint8)
