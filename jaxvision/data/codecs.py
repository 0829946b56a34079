"""Image files to arrays: JPEG by libjpeg-turbo, everything else by Pillow.

What comes out is always uint8 with the asked number of channels, upright (EXIF orientation
applied); what cannot be decoded whole is an error that names the file, never a half-grey picture.
"""

import io
from typing import Literal

import numpy as np
import simplejpeg
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from jaxvision.errors import UserError

_JPEG = b"\xff\xd8\xff"
_EXIF_WINDOW = 65536 + 64  # an EXIF segment follows the start of a file and is at most 64 KiB


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
      data: contents of a JPEG, PNG, BMP, GIF (first frame), TIFF or WebP file.
      channels: 3 for RGB, 1 for grey.
      name: named in errors.

    Returns:
      uint8 [height, width, channels].

    Raises:
      CorruptImageError: empty, truncated, damaged or of unknown format.
    """
    if data[:3] == _JPEG:
        try:
            colourspace = simplejpeg.decode_jpeg_header(data)[2]
            if colourspace not in ("CMYK", "YCCK"):
                wanted = "RGB" if channels == 3 else "GRAY"
                pixels = simplejpeg.decode_jpeg(data, colorspace=wanted, strict=True)
                return _upright(pixels, _orientation(data))
        except ValueError as error:
            raise CorruptImageError(name, str(error)) from error
    image = ImageOps.exif_transpose(_open(data, name))
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_high_byte(np.asarray(image), name))
    pixels = np.asarray(image.convert("RGB" if channels == 3 else "L"))
    return pixels if channels == 3 else pixels[..., None]


def decode_mask(data: bytes, name: str = "<bytes>") -> np.ndarray:
    """Decodes a mask of class indices: the stored sample values or palette indices, unconverted.

    Returns:
      uint8 [height, width], or int32 for masks of 16 or 32 bits.

    Raises:
      CorruptImageError: undecodable, or a colour image (class indices have one channel).
    """
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


def encode_png(pixels: np.ndarray) -> bytes:
    """uint8 [h, w], [h, w, 1] or [h, w, 3] to PNG bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels).save(
        buffer, format="PNG"
    )
    return buffer.getvalue()


def _open(data: bytes, name: str) -> Image.Image:
    if not data:
        raise CorruptImageError(name, "the file is empty")
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except UnidentifiedImageError as error:
        raise CorruptImageError(name, "no known image format") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise CorruptImageError(name, str(error)) from error
    return image


def _orientation(data: bytes) -> int:
    """EXIF orientation 1..8 of a JPEG, without decoding its pixels."""
    if b"Exif\x00" not in data[:_EXIF_WINDOW]:
        return 1
    return int(Image.open(io.BytesIO(data)).getexif().get(ExifTags.Base.Orientation, 1))


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    turns = {3: 2, 4: 2, 5: 3, 6: 3, 7: 1, 8: 1}.get(orientation, 0)
    turned = np.rot90(pixels, turns)
    if orientation in (2, 4, 5, 7):
        turned = turned[:, ::-1]
    return np.ascontiguousarray(turned)


def _high_byte(samples: np.ndarray, name: str) -> np.ndarray:
    if samples.dtype.kind == "f":
        raise CorruptImageError(name, "floating-point images have no fixed range")
    return (np.clip(samples, 0, 65535).astype(np.uint16) >> 8).astype(np.uint8)
