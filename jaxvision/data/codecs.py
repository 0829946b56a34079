"""Image files to arrays: JPEG by libjpeg-turbo, everything else by Pillow.

Images come out as uint8 with the asked number of channels, their range kept; masks as the values
that are stored. Both are upright (EXIF orientation applied). What cannot be decoded whole, or has
no fixed range, is an error that names the file, never a half-grey or black picture.
"""

import io
import re
from typing import Literal

import cv2
import numpy as np
import simplejpeg
from jaxtyping import Integer, UInt8
from PIL import Image

from jaxvision.data.headers import (
    MAX_PIXELS,
    NPY,
    CorruptImageError,
    check_declared,
    load,
    open_image,
    orientation,
    raw_mode,
    read_npy,
)
from jaxvision.errors import UserError

__all__ = [
    "MAX_PIXELS",
    "CorruptImageError",
    "decode_colours",
    "decode_image",
    "decode_mask",
    "decode_upright",
    "encode_png",
    "orientation_of",
    "packed_colours",
]

_JPEG = b"\xff\xd8\xff"
# What libjpeg warns of although every pixel is there.
_HARMLESS = ("extraneous bytes", "unknown JFIF revision", "Adobe color transform", "ICC marker")
# The header of a scan: how many components of which tables, then which coefficients.
_SCAN = re.compile(
    rb"(\xff\xda\x00(?:\x08\x01.{2}|\x0a\x02.{4}|\x0c\x03.{6}|\x0e\x04.{8})).{3}", re.DOTALL
)
_TIFF_PHOTOMETRIC, _TIFF_SAMPLE_FORMAT = 262, 339
_TIFF_SIGNED = 2


def decode_image(
    data: bytes,
    channels: Literal[1, 3] = 3,
    name: str = "<bytes>",
    max_pixels: int = MAX_PIXELS,
) -> UInt8[np.ndarray, "*size c"]:
    """Decodes an encoded image.

    Greyscale becomes colour by repetition, colour becomes grey by ITU-R 601 luma, CMYK and palette
    images are converted, transparency is dropped. Samples of other widths keep their range: those
    of 1, 2 and 4 bits are spread over 0 to 255, those of 12 and 16 keep their 8 highest bits.

    Args:
      data: contents of a JPEG, PNG, BMP, GIF (first frame), TIFF, WebP or PPM file; or of a NumPy
        file with a volume of uint8, [depth, height, width] or with the channels as a last axis.
      channels: 3 for RGB, 1 for grey.
      name: named in errors.
      max_pixels: that a header may declare; nothing is decoded of larger images.

    Returns:
      uint8 [height, width, channels], volumes with the depth before.

    Raises:
      CorruptImageError: empty, truncated, damaged, too large, of unknown format, or of samples
        without a fixed range (signed, 32 bits, floating-point).
    """
    return decode_upright(data, channels, name, max_pixels)[0]


def decode_upright(
    data: bytes,
    channels: Literal[1, 3] = 3,
    name: str = "<bytes>",
    max_pixels: int = MAX_PIXELS,
) -> tuple[UInt8[np.ndarray, "*size c"], int]:
    """`decode_image`, and the EXIF orientation (1 to 8) from which it was turned upright.

    Raises:
      CorruptImageError: see `decode_image`.
    """
    if data.startswith(NPY):
        return _volume(data, channels, name, max_pixels), 1
    if data[:3] == _JPEG:
        pixels = _decode_jpeg(data, channels, name, max_pixels)
        if pixels is not None:
            turn = orientation(open_image(data, name, max_pixels)) if _has_exif(data) else 1
            return _upright(pixels, turn), turn
    image = open_image(data, name, max_pixels)
    raw = raw_mode(image)
    turn = orientation(load(image, name))
    try:
        pixels = np.asarray(_as_bytes(image, raw, name).convert("RGB" if channels == 3 else "L"))
    except ValueError as error:  # colour spaces like LAB
        raise CorruptImageError(name, str(error)) from error
    return _upright(pixels.reshape(*pixels.shape[:2], channels), turn), turn


def decode_mask(
    data: bytes, name: str = "<bytes>", max_pixels: int = MAX_PIXELS
) -> Integer[np.ndarray, "*size"]:
    """Decodes a mask of class indices: the stored sample values or palette indices, unconverted.

    Colour images whose channels are equal are taken for their one value; transparency is dropped.
    Of one bit, white is 1 in every format. A NumPy file may hold integers of any type.

    Returns:
      uint8 [height, width], or int32 for masks of 16 or 32 bits; volumes as they are stored.

    Raises:
      CorruptImageError: undecodable, or too large.
      UserError: sound, but colours or fractions and no class indices.
    """
    if data.startswith(NPY):
        return _whole_numbers(read_npy(data, name, max_pixels), name)
    image = open_image(data, name, max_pixels)
    raw, levels = raw_mode(image), _pnm_levels(image)
    image = load(image, name)
    pixels = np.asarray(image)
    if image.mode == "1":
        pixels = pixels.astype(np.uint8)
    elif image.mode in ("LA", "PA"):
        pixels = pixels[..., 0]
    elif image.mode in ("RGB", "RGBA"):
        if ";16" in raw or levels > 255:  # Pillow keeps the high byte alone
            pixels, levels = _deep(data, name), 0
        pixels = _one_channel(pixels[..., :3], name)
    elif image.mode not in ("L", "P") and not image.mode.startswith("I"):
        raise UserError(
            f"{name}: a mask has one channel of class indices, this is a {image.mode} image."
        )
    pixels = _unscaled(pixels, image, raw, levels)
    pixels = pixels if pixels.dtype == np.uint8 else pixels.astype(np.int32)
    return _upright(pixels, orientation(image))


def decode_colours(
    data: bytes, name: str = "<bytes>", max_pixels: int = MAX_PIXELS
) -> Integer[np.ndarray, "*size"]:
    """Decodes a mask whose classes are colours, see `packed_colours`.

    Raises:
      CorruptImageError: undecodable, or too large.
      UserError: it has no colours of 8 bits.
    """
    if data.startswith(NPY):
        return packed_colours(read_npy(data, name, max_pixels), name)
    image = load(open_image(data, name, max_pixels), name)
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        raise UserError(
            f"{name}: data.mask_colours are of RGB or palette masks, this is a {image.mode} image."
        )
    return _upright(packed_colours(np.asarray(image.convert("RGB")), name), orientation(image))


def packed_colours(pixels: np.ndarray, name: str) -> Integer[np.ndarray, "*size"]:
    """Colours uint8 [*size, 3] as int32 [*size]: red * 65536 + green * 256 + blue.

    Raises:
      UserError: they are something else.
    """
    if pixels.dtype != np.uint8 or pixels.ndim < 3 or pixels.shape[-1] != 3:
        raise UserError(
            f"{name}: a mask of colours is uint8 [h, w, 3], this {pixels.dtype} "
            f"{list(pixels.shape)}."
        )
    red, green, blue = np.moveaxis(pixels.astype(np.int32), -1, 0)
    return (red << 16) | (green << 8) | blue


def orientation_of(data: bytes, name: str = "<bytes>") -> int:
    """The EXIF orientation (1 to 8) of an encoded image; 1 of volumes.

    Raises:
      CorruptImageError: undecodable.
    """
    return 1 if data.startswith(NPY) else orientation(load(open_image(data, name), name))


def encode_png(pixels: np.ndarray) -> bytes:
    """uint8 [h, w], [h, w, 1] or [h, w, 3] to PNG bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels).save(
        buffer, format="PNG"
    )
    return buffer.getvalue()


# -- JPEG -----------------------------------------------------------------------------------------


def _decode_jpeg(data: bytes, channels: int, name: str, max_pixels: int) -> np.ndarray | None:
    """uint8 [h, w, channels] as stored, or None where Pillow must decode (CMYK, odd sampling)."""
    try:
        height, width, colourspace, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:  # truncated, or a chroma sampling that TurboJPEG has no name for
        return None
    check_declared((height, width), name, max_pixels)
    if colourspace in ("CMYK", "YCCK"):
        return None
    wanted = "RGB" if channels == 3 else "GRAY"
    for once_more in (True, False):
        try:
            return simplejpeg.decode_jpeg(data, colorspace=wanted, strict=True)
        except ValueError as error:
            if "Invalid SOS parameters" in str(error) and once_more:
                # Sequential scans have all coefficients, whatever some cameras write there.
                data = _SCAN.sub(lambda match: match[1] + b"\0\x3f\0", data)
            elif any(text in str(error) for text in _HARMLESS):
                return None
            else:
                raise CorruptImageError(name, str(error)) from error
    return None


def _has_exif(data: bytes) -> bool:
    """Whether a JPEG has an EXIF segment before its pixels; Pillow takes far longer to say."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        if data[at + 1] == 0xE1 and data[at + 4 : at + 9] == b"Exif\0":
            return True
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return False


# -- samples --------------------------------------------------------------------------------------


def _volume(data: bytes, channels: int, name: str, max_pixels: int) -> np.ndarray:
    """uint8 [d, h, w, channels] of a NumPy file."""
    volume = read_npy(data, name, max_pixels)
    if volume.dtype != np.uint8 or volume.ndim not in (3, 4):
        raise CorruptImageError(
            name, f"a volume is uint8 [d, h, w] or [d, h, w, c], this {volume.dtype} {volume.shape}"
        )
    volume = volume[..., None] if volume.ndim == 3 else volume
    if volume.shape[-1] != channels:
        raise CorruptImageError(name, f"a volume of {volume.shape[-1]} channels, not {channels}")
    return volume


def _as_bytes(image: Image.Image, raw: str, name: str) -> Image.Image:
    """The image with samples of 8 bits, or in a mode that Pillow converts to them.

    Raises:
      CorruptImageError: its samples have no fixed range.
    """
    if image.mode == "F":
        raise CorruptImageError(
            name, "floating-point images have no fixed range; scale it to 8 or 16 bits"
        )
    if _tiff_tag(image, _TIFF_SAMPLE_FORMAT) == _TIFF_SIGNED:
        raise CorruptImageError(
            name, "images of signed integers have no fixed range; scale it to 8 or 16 bits"
        )
    if image.mode.startswith("I"):
        deep = image.format == "PPM" or any(m.startswith("I;16") for m in (raw, image.mode))
        if not deep:
            raise CorruptImageError(
                name, "images of 32-bit integers have no fixed range; scale it to 8 or 16 bits"
            )
        samples = np.asarray(image).astype(np.uint16) >> (4 if raw == "I;12" else 8)
        if _tiff_tag(image, _TIFF_PHOTOMETRIC) == 0:  # 0 is white; Pillow knows it of 8 bits
            samples = 255 - samples
        return Image.fromarray(samples.astype(np.uint8))
    if image.mode in ("La", "RGBa"):  # premultiplied
        return image.convert(image.mode.upper())
    return image


def _tiff_tag(image: Image.Image, tag: int) -> int | None:
    """The first value of a tag; None of other formats."""
    value = image.tag_v2.get(tag) if image.format == "TIFF" else None  # type: ignore[attr-defined]
    return value[0] if isinstance(value, tuple) else value


def _pnm_levels(image: Image.Image) -> int:
    """The largest sample value that a PPM or PGM file declares, to which Pillow scales; else 0."""
    tile = getattr(image, "tile", None) if image.format == "PPM" else None
    args = tile[0][3] if tile else ()
    return args[-1] if isinstance(args, tuple) and len(args) == 2 else 0


def _unscaled(pixels: np.ndarray, image: Image.Image, raw: str, levels: int) -> np.ndarray:
    """Stored values, where Pillow spreads samples over its own range."""
    if levels:
        largest = 65535 if image.mode == "I" else 255
        return np.rint(pixels.astype(np.float64) * levels / largest).astype(np.int32)
    if image.mode != "L":
        return pixels
    form = raw.partition(";")[2]
    if form.startswith(("2", "4")):
        pixels = pixels // (85 if form[0] == "2" else 17)
    if "I" in form:  # TIFF with 0 for white
        pixels = {"2": 3, "4": 15}.get(form[0], 255) - pixels
    if _tiff_tag(image, _TIFF_SAMPLE_FORMAT) == _TIFF_SIGNED:
        pixels = pixels.view(np.int8).astype(np.int32)
    return pixels


def _deep(data: bytes, name: str) -> np.ndarray:
    """uint16 [h, w, 3 or 4] of a colour image of 16 bits."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3:
        raise CorruptImageError(name, "a colour image of 16 bits that OpenCV does not read")
    return pixels


def _one_channel(pixels: np.ndarray, name: str) -> np.ndarray:
    """[h, w] of [h, w, 3] with equal channels.

    Raises:
      UserError: they are colours.
    """
    grey = pixels[..., 0]
    if (pixels == grey[..., None]).all():
        return grey
    packed = pixels.astype(np.int64) @ np.array([1 << 32, 1 << 16, 1])
    colours, counts = np.unique(packed, return_counts=True)
    often = colours[np.argsort(-counts)[:10]].tolist()
    shown = ", ".join(f"({c >> 32}, {c >> 16 & 65535}, {c & 65535})" for c in often)
    more = f" and {len(colours) - 10} more" if len(colours) > 10 else ""
    raise UserError(
        f"{name}: a mask has one channel of class indices, this is an RGB image with the colours "
        f"{shown}{more}. data.mask_colours names the colour of each class."
    )


def _whole_numbers(array: np.ndarray, name: str) -> np.ndarray:
    """A mask of a NumPy file as uint8 or int32.

    Raises:
      UserError: it is something else.
    """
    if array.dtype.kind not in "bui" or array.ndim < 2:
        raise UserError(
            f"{name}: a mask is integers [h, w] or [d, h, w], this {array.dtype} "
            f"{list(array.shape)}."
        )
    if array.dtype.itemsize == 1 and array.dtype.kind != "i":
        return array.astype(np.uint8)
    limits = np.iinfo(np.int32)
    return np.clip(array, limits.min, limits.max).astype(np.int32)


def _upright(pixels: np.ndarray, turn: int) -> np.ndarray:
    """EXIF orientation of [h, w] or [h, w, c] applied."""
    if turn == 1:
        return pixels
    turns = {3: 2, 4: 2, 5: 3, 6: 3, 7: 1, 8: 1}.get(turn, 0)
    turned = np.rot90(pixels, turns)
    if turn in (2, 4, 5, 7):
        turned = turned[:, ::-1]
    return np.ascontiguousarray(turned)
