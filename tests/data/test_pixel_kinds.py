"""Images and masks of every kind of pixels that Pillow and OpenCV write."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from jaxvision.data.codecs import (
    CorruptImageError,
    decode_colours,
    decode_image,
    decode_mask,
    encode_png,
)
from jaxvision.errors import UserError

H, W = 6, 8
VALUES = np.arange(H * W).reshape(H, W)
SMALL = (VALUES % 4).astype(np.uint8)  # 0 to 3
DEEP = (VALUES * 1300 + 7).astype(np.uint16)  # to 61107
BIT = VALUES % 3 == 0


def pillow(array, form="PNG", mode=None, **options) -> bytes:
    buffer = io.BytesIO()
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    (image.convert(mode) if mode else image).save(buffer, form, **options)
    return buffer.getvalue()


def opencv(array, suffix) -> bytes:
    return cv2.imencode(suffix, array)[1].tobytes()


def palette(array, bits=8, **options) -> bytes:
    image = Image.fromarray(array).convert("P")
    image.putpalette([v for i in range(256) for v in (i, 255 - i, 7)])
    return pillow(image, bits=bits, **options)


def packed(samples, bits) -> bytes:
    """Rows of samples of 1 to 16 bits, the first in the highest bits, rows ending on a byte."""
    rows = (np.asarray(samples)[..., None] >> np.arange(bits)[::-1]) & 1
    return np.packbits(rows.reshape(len(samples), -1).astype(np.uint8), axis=1).tobytes()


def png(samples, bits, colour=0) -> bytes:
    def chunk(kind, body):
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    stride = len(packed(samples[:1], bits))
    rows = packed(samples, bits)
    rows = b"".join(b"\0" + rows[at : at + stride] for at in range(0, len(rows), stride))
    header = struct.pack(">IIBBBBB", W, H, bits, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def tiff(body, bits, photometric=1, sample_format=1, **more) -> bytes:
    """One strip, little-endian."""
    tags = {256: W, 257: H, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: H}
    tags |= {279: len(body), 339: sample_format}
    if more.get("premultiplied"):  # a second sample, associated alpha
        tags |= {258: bits << 16 | bits, 277: 2, 338: 1, 339: 1 << 16 | 1}
    entries = b""
    for tag, value in sorted(tags.items()):
        pair = tag in (258, 339) and value > 0xFFFF
        entries += struct.pack("<HHII", tag, *((3, 2) if pair else (4, 1)), value)
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + directory


LEVELS = (VALUES % 16).astype(np.uint8)
GREY = (VALUES * 5).astype(np.uint8)
EQUAL = np.repeat(SMALL[..., None], 3, -1)
ALPHA = np.full((H, W, 1), 9, np.uint8)
SIGNED = (VALUES.astype(np.int8) - 20).astype(np.int8)
COLOURS = "no mask"  # refused with a UserError
NO_RANGE = "no range"  # refused with the name

# (file, what the image is in grey, what the mask is)
KINDS = {
    "1 bit PNG": (pillow(BIT), BIT * 255, BIT),
    "2 bit PNG": (png(SMALL, 2), SMALL * 85, SMALL),
    "4 bit PNG": (png(LEVELS, 4), LEVELS * 17, LEVELS),
    "8 bit PNG": (pillow(GREY), GREY, GREY),
    "16 bit PNG": (pillow(DEEP), DEEP >> 8, DEEP),
    "16 bit PNG of OpenCV": (opencv(DEEP, ".png"), DEEP >> 8, DEEP),
    "LA": (pillow(np.concatenate([GREY[..., None], ALPHA], -1)), GREY, GREY),
    "16 bit RGB PNG": (opencv(np.repeat(DEEP[..., None], 3, -1), ".png"), DEEP >> 8, DEEP),
    "16 bit RGBA PNG": (opencv(np.repeat(DEEP[..., None], 4, -1), ".png"), DEEP >> 8, DEEP),
    "RGB of equal channels": (pillow(EQUAL), SMALL, SMALL),
    "RGBA of equal channels": (pillow(np.concatenate([EQUAL, ALPHA], -1)), SMALL, SMALL),
    "RGB": (pillow(EQUAL * np.array([1, 2, 3], np.uint8)), None, COLOURS),
    "P": (palette(GREY), None, GREY),
    "P of 2 bits": (palette(SMALL, 2), None, SMALL),
    "P of 4 bits": (palette(LEVELS, 4), None, LEVELS),
    "P with transparency": (palette(GREY, transparency=3), None, GREY),
    "1 bit TIFF": (pillow(BIT, "TIFF"), BIT * 255, BIT),
    "1 bit TIFF, group 4": (pillow(BIT, "TIFF", compression="group4"), BIT * 255, BIT),
    "1 bit BMP": (pillow(BIT, "BMP"), BIT * 255, BIT),
    "8 bit BMP": (pillow(GREY, "BMP"), GREY, GREY),
    "8 bit GIF": (pillow(GREY, "GIF"), GREY, VALUES),  # Pillow numbers the colours anew
    "1 bit PBM": (pillow(BIT, "PPM"), BIT * 255, BIT),
    "PGM of 4 levels": (b"P5 8 6 3\n" + SMALL.tobytes(), SMALL * 85, SMALL),
    "plain PGM": (f"P2 8 6 3 {' '.join(map(str, SMALL.ravel()))}\n".encode(), SMALL * 85, SMALL),
    "PGM of 1000 levels": (
        b"P5 8 6 1000\n" + (VALUES * 20).astype(">u2").tobytes(),
        np.rint(VALUES * 20 * 65.535).astype(int) >> 8,
        VALUES * 20,
    ),
    "16 bit PGM": (opencv(DEEP, ".pgm"), DEEP >> 8, DEEP),
    "16 bit PPM": (opencv(np.repeat(DEEP[..., None], 3, -1), ".ppm"), None, DEEP),
    "lossless WebP": (pillow(EQUAL, "WEBP", lossless=True), SMALL, SMALL),
    "uint16 TIFF": (pillow(DEEP, "TIFF"), DEEP >> 8, DEEP),
    "uint16 TIFF, big-endian": (pillow(DEEP.astype(">u2"), "TIFF"), DEEP >> 8, DEEP),
    "uint16 RGB TIFF": (opencv(np.repeat(DEEP[..., None], 3, -1), ".tiff"), DEEP >> 8, DEEP),
    "2 bit TIFF": (tiff(packed(SMALL, 2), 2), SMALL * 85, SMALL),
    "4 bit TIFF": (tiff(packed(LEVELS, 4), 4), LEVELS * 17, LEVELS),
    "4 bit TIFF, 0 is white": (tiff(packed(LEVELS, 4), 4, 0), 255 - LEVELS * 17, LEVELS),
    "8 bit TIFF, 0 is white": (tiff(GREY.tobytes(), 8, 0), 255 - GREY, GREY),
    "12 bit TIFF": (tiff(packed(DEEP >> 4, 12), 12), DEEP >> 8, DEEP >> 4),
    "16 bit TIFF, 0 is white": (tiff(DEEP.tobytes(), 16, 0), 255 - (DEEP >> 8), DEEP),
    "int8 TIFF": (tiff(SIGNED.tobytes(), 8, 1, 2), NO_RANGE, SIGNED),
    "int16 TIFF": (tiff(SIGNED.astype("<i2").tobytes(), 16, 1, 2), NO_RANGE, SIGNED),
    "int32 TIFF": (opencv(VALUES.astype(np.int32), ".tiff"), NO_RANGE, VALUES),
    "uint32 TIFF": (opencv(VALUES.astype(np.uint32), ".tiff"), NO_RANGE, VALUES),
    "I": (pillow(VALUES.astype(np.int32), "TIFF"), NO_RANGE, VALUES),
    "float32 TIFF": (pillow(VALUES.astype(np.float32), "TIFF"), NO_RANGE, COLOURS),
    "float64 TIFF": (opencv(VALUES.astype(np.float64), ".tiff"), "not read", None),
    "float32 RGB TIFF": (opencv(EQUAL.astype(np.float32), ".tiff"), "not read", None),
    "CMYK TIFF": (pillow(EQUAL, "TIFF", "CMYK"), SMALL, COLOURS),
    "YCbCr TIFF": (pillow(EQUAL, "TIFF", "YCbCr"), SMALL, COLOURS),
    "premultiplied LA": (
        tiff(np.stack([GREY // 2, np.full_like(GREY, 128)], -1).tobytes(), 8, premultiplied=True),
        GREY // 2 * 255.0 // 128,
        COLOURS,
    ),
    "LAB TIFF": (pillow(Image.new("LAB", (W, H)), "TIFF"), "LAB", COLOURS),
    "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n", "no known image format", None),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_images_keep_their_range(kind):
    data, grey, _ = KINDS[kind]
    if isinstance(grey, str):
        message = "no fixed range; scale it" if grey == NO_RANGE else grey
        with pytest.raises(CorruptImageError, match=rf"a\.x: .*{message}"):
            decode_image(data, 1, "a.x")
        return
    if grey is None:  # colours, by Pillow
        grey = np.asarray(Image.open(io.BytesIO(data)).convert("LA").convert("L"))
    found = decode_image(data, 1)
    assert found.dtype == np.uint8
    np.testing.assert_allclose(found[..., 0].astype(int), grey.astype(int), atol=1)
    assert decode_image(data, 3).shape == (H, W, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_masks_are_stored_values(kind):
    data, _, mask = KINDS[kind]
    if mask is None or isinstance(mask, str):
        error = UserError if mask == COLOURS else CorruptImageError
        with pytest.raises(UserError, match=r"a\.x: ") as caught:
            decode_mask(data, "a.x")
        assert type(caught.value) is error
        return
    found = decode_mask(data)
    assert found.dtype in (np.uint8, np.int32)
    np.testing.assert_array_equal(found, mask)


@pytest.mark.parametrize("dtype", ["bool", "u1", "i1", "<u2", ">i4", "i8", "u8"])
@pytest.mark.parametrize("by_columns", [False, True])
def test_masks_of_numpy_files(dtype, by_columns):
    buffer = io.BytesIO()
    mask = np.asarray(SMALL.astype(dtype), order="F" if by_columns else "C")
    np.save(buffer, mask)
    found = decode_mask(buffer.getvalue())
    np.testing.assert_array_equal(found, mask)
    assert found.dtype == (np.uint8 if dtype in ("bool", "u1") else np.int32)
    buffer = io.BytesIO()
    np.save(buffer, SMALL.astype(np.float32))
    with pytest.raises(UserError, match=r"m\.npy: a mask is integers"):
        decode_mask(buffer.getvalue(), "m.npy")


def test_colours_are_packed():
    colours = np.array([[[0, 0, 0], [1, 2, 3]], [[255, 255, 255], [128, 0, 9]]], np.uint8)
    expected = [[0, 0x010203], [0xFFFFFF, 0x800009]]
    np.testing.assert_array_equal(decode_colours(encode_png(colours)), expected)
    quantized = pillow(Image.fromarray(colours).quantize(4))
    np.testing.assert_array_equal(decode_colours(quantized), expected)
    with pytest.raises(UserError, match=r"m\.tif: data\.mask_colours are of RGB.* F image"):
        decode_colours(pillow(VALUES.astype(np.float32), "TIFF"), "m.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_masks_follow_their_own_orientation(orientation, form):
    exif = Image.Exif()
    exif[0x0112] = orientation
    photograph = decode_image(pillow(GREY, form, exif=exif), 1)[..., 0]
    np.testing.assert_array_equal(decode_mask(pillow(GREY, form, exif=exif)), photograph)
    deep = decode_mask(pillow(DEEP, form, exif=exif))
    np.testing.assert_array_equal((deep - 7) // 1300 * 5 % 256, photograph)
    np.testing.assert_array_equal(decode_image(pillow(DEEP, form, exif=exif), 1)[..., 0], deep >> 8)
