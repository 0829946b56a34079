import contextlib
import io
import pickle
import random
import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from jaxvision.data.codecs import (
    CorruptImageError,
    decode_colours,
    decode_image,
    decode_mask,
    encode_png,
)
from jaxvision.errors import UserError

H, W = 48, 64
ROWS, COLUMNS = np.mgrid[:H, :W]
# Smooth, so that lossy formats come close, and without any symmetry.
COLOUR = np.stack([3 * ROWS, 2 * COLUMNS, ROWS + COLUMNS], -1).astype(np.uint8)
GREY = COLOUR[..., 0]


def encoded(image, form, **options) -> bytes:
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, form, **options)
    return buffer.getvalue()


def by_pillow(data: bytes, mode: str = "RGB") -> np.ndarray:
    pixels = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert(mode))
    return pixels.reshape(*pixels.shape[:2], len(mode))


def worst(a, b) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def png_chunks(*chunks: tuple[bytes, bytes]) -> bytes:
    out = b"\x89PNG\r\n\x1a\n"
    for kind, body in chunks:
        out += struct.pack(">I", len(body)) + kind + body
        out += struct.pack(">I", zlib.crc32(kind + body))
    return out


JPEG = encoded(COLOUR, "JPEG", quality=95)
PNG = encoded(COLOUR, "PNG")


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 30}]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_what_pillow_decodes(options, channels):
    data = encoded(COLOUR, "JPEG", **options)
    pixels = decode_image(data, channels)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (H, W, channels)
    # Grey from the stored luma, where Pillow goes by rounded and clipped RGB.
    limit = 0 if channels == 3 else 3
    assert worst(pixels, by_pillow(data, "RGB" if channels == 3 else "L")) <= limit


def test_grey_jpeg_as_colour_repeats_its_channel():
    data = encoded(GREY, "JPEG", quality=95)
    grey, colour = decode_image(data, 1), decode_image(data, 3)
    assert worst(grey[..., 0], GREY) <= 3
    np.testing.assert_array_equal(colour, np.repeat(grey, 3, axis=-1))


@pytest.mark.parametrize("transform", [0, 2])
def test_cmyk_and_ycck_jpeg(transform):
    """Pillow writes CMYK inverted, with an Adobe marker; its last byte 2 makes it YCCK."""
    data = encoded(Image.fromarray(COLOUR).convert("CMYK"), "JPEG", quality=98)
    at = data.index(b"Adobe") + 11
    data = data[:at] + bytes([transform]) + data[at + 1 :]
    pixels = decode_image(data, 3)
    assert worst(pixels, by_pillow(data)) == 0
    assert decode_image(data, 1).shape == (H, W, 1)
    if transform == 0:
        assert worst(pixels, COLOUR) <= 6  # not the negative


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation(orientation, form):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95, "subsampling": 0} if form == "JPEG" else {}
    if form == "WEBP":
        options = {"lossless": True}
    data = encoded(COLOUR, form, exif=exif, **options)
    pixels = decode_image(data)
    assert pixels.shape == ((H, W, 3) if orientation < 5 else (W, H, 3))
    assert worst(pixels, by_pillow(data)) <= 2
    assert worst(pixels, COLOUR) > 20 if 1 < orientation < 5 else True


def test_exif_behind_other_segments_and_damaged_exif():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(COLOUR, "JPEG", exif=exif, quality=95)
    many = b"".join(b"\xff\xe2" + struct.pack(">H", 65000) + bytes(64998) for _ in range(3))
    assert decode_image(data[:2] + many + data[2:]).shape == (W, H, 3)
    at = data.index(b"Exif\0\0") + 6
    damaged = data[:at] + b"garbage!" + data[at + 8 :]
    assert decode_image(damaged).shape == (H, W, 3)
    odd = data[:at] + data[at:].replace(
        struct.pack(">HHI", 0x0112, 3, 1), b"\x01\x12\0\2\0\0\0\1", 1
    )
    assert odd != data
    assert decode_image(odd).shape in ((H, W, 3), (W, H, 3))


def test_png_modes():
    palette = Image.fromarray(COLOUR).quantize(16)
    np.testing.assert_array_equal(
        decode_image(encoded(palette, "PNG")), np.asarray(palette.convert("RGB"))
    )
    transparent = encoded(palette, "PNG", transparency=3)
    np.testing.assert_array_equal(decode_image(transparent), np.asarray(palette.convert("RGB")))
    bits = Image.fromarray(GREY > 60)
    np.testing.assert_array_equal(
        decode_image(encoded(bits, "PNG"), 1)[..., 0], np.where(GREY > 60, 255, 0)
    )
    alpha = np.full((H, W, 1), 7, np.uint8)
    grey_alpha = Image.fromarray(np.concatenate([GREY[..., None], alpha], -1))
    assert grey_alpha.mode == "LA"
    np.testing.assert_array_equal(decode_image(encoded(grey_alpha, "PNG"), 1)[..., 0], GREY)
    colour_alpha = encoded(np.concatenate([COLOUR, alpha], -1), "PNG")
    np.testing.assert_array_equal(decode_image(colour_alpha), COLOUR)


def test_16_bit_samples_keep_their_high_byte():
    deep = (ROWS * 1300 + COLUMNS * 3).astype(np.uint16)
    data = encoded(deep, "PNG")
    np.testing.assert_array_equal(decode_image(data, 1)[..., 0], deep >> 8)
    by_cv2 = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(decode_image(data, 3), np.repeat(by_cv2[..., None] >> 8, 3, -1))
    colour = np.stack([deep, deep[::-1], deep[:, ::-1]], -1)
    data = cv2.imencode(".png", colour[..., ::-1])[1].tobytes()
    np.testing.assert_array_equal(decode_image(data), colour >> 8)


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_lossless_formats(form):
    data = encoded(COLOUR, form, **({"lossless": True} if form == "WEBP" else {}))
    np.testing.assert_array_equal(decode_image(data), COLOUR)
    luma = COLOUR @ np.array([0.299, 0.587, 0.114])
    assert np.abs(decode_image(data, 1)[..., 0] - luma).max() <= 1


def test_gif_gives_its_first_frame():
    first, second = Image.fromarray(COLOUR).quantize(32), Image.fromarray(COLOUR[::-1]).quantize(32)
    data = encoded(first, "GIF", save_all=True, append_images=[second])
    assert worst(decode_image(data), np.asarray(first.convert("RGB"))) == 0


def test_harmless_bytes_between_jpeg_segments_are_no_damage():
    at = JPEG.index(b"\xff\xda")
    assert worst(decode_image(JPEG[:at] + b"\x11\x22" + JPEG[at:]), by_pillow(JPEG)) == 0
    assert worst(decode_image(JPEG + b"trailing"), by_pillow(JPEG)) == 0
    assert worst(decode_image(JPEG[:-2] + bytes(5) + JPEG[-2:]), by_pillow(JPEG)) == 0


@pytest.mark.parametrize("name", ["baseline", "progressive", "grey", "cmyk", "png", "gif", "webp"])
@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.8, 0.97])
def test_truncated_files_are_refused(name, share):
    noise = np.random.default_rng(0).integers(0, 256, COLOUR.shape, np.uint8)
    data = {
        "baseline": JPEG,
        "progressive": encoded(COLOUR, "JPEG", progressive=True, quality=95),
        "grey": encoded(GREY, "JPEG"),
        "cmyk": encoded(Image.fromarray(COLOUR).convert("CMYK"), "JPEG"),
        "png": encoded(COLOUR ^ noise, "PNG"),
        "gif": encoded(Image.fromarray(COLOUR).quantize(32), "GIF"),
        "webp": encoded(COLOUR, "WEBP"),
    }[name]
    with pytest.raises(CorruptImageError, match=r"some/file\.x") as caught:
        decode_image(data[: int(share * len(data))], name="some/file.x")
    assert caught.value.name == "some/file.x"
    assert len(caught.value.reason) > 5


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"not an image, but text\n" * 20, "no known image format"),
        (JPEG[:3], "cut off"),
        (JPEG[:-2], "end of JPEG"),
        (PNG[:60] + b"\xff\xff" + PNG[62:], ""),
        (encoded(Image.fromarray(GREY.astype(np.float32)), "TIFF"), "floating-point"),
    ],
)
def test_undecodable_files_are_named(data, reason):
    with pytest.raises(CorruptImageError, match=rf"Cannot read image dir/a\.jpg: .*{reason}"):
        decode_image(data, name="dir/a.jpg")


def test_unsupported_conversion_is_named():
    data = encoded(Image.new("LAB", (4, 4)), "TIFF")
    with pytest.raises(CorruptImageError, match=r"x\.tif.*LAB"):
        decode_image(data, 1, "x.tif")


def test_damage_inside_a_jpeg_is_refused():
    """Pillow alone would give a picture that is grey from there on."""
    data = bytearray(JPEG)
    at = data.index(b"\xff\xda") + 40
    data[at : at + 2] = b"\xff\xd9"  # an early end of image
    with pytest.raises(CorruptImageError, match="a"):
        decode_image(bytes(data), name="a")


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")  # of Pillow
def test_any_damage_is_a_clear_error_or_no_error():
    rng = random.Random(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    files = [JPEG, PNG, encoded(COLOUR, "JPEG", exif=exif), encoded(COLOUR, "PNG", exif=exif)]
    files += [encoded(Image.fromarray(COLOUR).quantize(16), f) for f in ("PNG", "GIF", "BMP")]
    files += [encoded(COLOUR, f) for f in ("WEBP", "PPM", "TIFF")]
    refused = 0
    for data in files:
        for _ in range(100):
            broken = bytearray(data)
            for _ in range(rng.choice((1, 3))):
                broken[rng.randrange(min(len(broken), rng.choice((60, 200, len(broken)))))] = (
                    rng.randrange(256)
                )
            try:
                decoded = decode_image(bytes(broken))
                assert decoded.dtype == np.uint8
                assert decoded.shape[2] == 3
            except CorruptImageError:
                refused += 1
            with contextlib.suppress(UserError):
                assert decode_mask(bytes(broken)).ndim == 2
    assert 200 < refused < 1000


def test_no_pixels_for_a_png_without_data():
    header = struct.pack(">IIBBBBB", W, H, 8, 2, 0, 0, 0)
    with pytest.raises(CorruptImageError):
        decode_image(png_chunks((b"IHDR", header), (b"IEND", b"")))


def test_a_bomb_is_refused():
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    with pytest.raises(CorruptImageError, match=r"60000x60000 pixels.*max_image_pixels=536870912"):
        decode_image(png_chunks((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_declared_sizes_are_checked_before_decoding(form, monkeypatch):
    data = encoded(COLOUR, form)
    assert decode_image(data, max_pixels=H * W).shape == (H, W, 3)
    monkeypatch.setattr("jaxvision.data.codecs.load", None)  # nobody comes so far
    monkeypatch.setattr("simplejpeg.decode_jpeg", None)
    for decode in (decode_image, decode_mask, decode_colours):
        with pytest.raises(CorruptImageError, match=r"a: .*declares 64x48 pixels.*=3071\b"):
            decode(data, name="a", max_pixels=H * W - 1)


def npy(header, body=b""):
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode() + body


def claiming(width, height):
    """Files of a few bytes whose headers claim a size."""
    at = JPEG.index(b"\xff\xc0") + 5
    vp8x = b"VP8X" + struct.pack("<II", 10, 0)
    vp8x += (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    bmp = struct.pack("<IIIIiiHHIIIIII", 99, 0, 54, 40, width, height, 1, 24, *[0] * 6)
    return {
        "JPEG": JPEG[:at] + struct.pack(">HH", height, width) + JPEG[at + 4 :],
        "WEBP": b"RIFF" + struct.pack("<I", 100) + b"WEBP" + vp8x + bytes(80),
        "PPM": f"P6 {width} {height} 255\n".encode() + bytes(99),
        "BMP": b"BM" + bmp,
        "NPY": npy(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({height}, {width})}}"),
    }


@pytest.mark.parametrize("form", claiming(9, 9))
def test_a_header_that_claims_memory_gets_none(form):
    data = claiming(65500, 65500)[form]
    tracemalloc.start()
    try:
        with pytest.raises(CorruptImageError, match=r"65500x65500 pixels"):
            decode_image(data)
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


def test_images_beyond_pillows_own_limit(monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    colour, grey = ([encoded(x, form) for form in ("PNG", "TIFF", "JPEG")] for x in (COLOUR, GREY))
    for data in colour:
        assert decode_image(data).shape == (H, W, 3)
    for data in grey:
        assert decode_mask(data).shape == (H, W)
    assert Image.MAX_IMAGE_PIXELS == 100
    assert not [w for w in recwarn if "bomb" in str(w.message)]


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("picture", [COLOUR, GREY])
def test_baseline_jpeg_with_odd_scan_headers(picture, options):
    """Sequential scans whose header names no coefficients, as some telephones write it."""
    data = encoded(picture, "JPEG", quality=95, **options)
    at = data.index(b"\xff\xda")
    at += 2 + int.from_bytes(data[at + 2 : at + 4])
    assert data[at - 3 : at] == b"\0\x3f\0"
    odd = data[: at - 3] + bytes(3) + data[at:]
    for channels in (1, 3):
        np.testing.assert_array_equal(decode_image(odd, channels), decode_image(data, channels))
    with pytest.raises(CorruptImageError):  # damage is still found
        decode_image(odd[: at + 60] + b"\xff\xd9" + odd[at + 62 :])
    with pytest.raises(CorruptImageError):
        decode_image(odd[:-40])


def test_unknown_revisions_of_jfif_are_no_damage():
    odd = JPEG[:11] + b"\7" + JPEG[12:]
    assert worst(decode_image(odd), decode_image(JPEG)) == 0


HEADERS = [
    "{'descr': '|u1', 'fortran_order': False, 'shape': (4, 4, 4)}",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000,)}",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (0, 9, 9)}",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (-4, -4, 4)}",
    "{'descr': '|O', 'fortran_order': False, 'shape': (1, 1, 1)}",
    "{'descr': '|V1000000000', 'fortran_order': False, 'shape': (4, 4, 4)}",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (" + "1," * 100 + ")}",
    "{'descr': __import__('os'), 'fortran_order': False, 'shape': (1,)}",
    "(" * 9000,
    "-" * 9000,
    "{'descr': '|u1'}",
    "",
]


@pytest.mark.parametrize("header", HEADERS)
def test_hostile_numpy_files(header):
    for decode in (decode_image, decode_mask, decode_colours):
        with pytest.raises(CorruptImageError, match=r"^Cannot read image v\.npy: "):
            decode(npy(header), name="v.npy")
    assert decode_image(npy(HEADERS[0], bytes(64)), 1).shape == (4, 4, 4, 1)


def test_mutated_numpy_files():
    rng, files, refused = random.Random(0), [], 0
    for array in (np.zeros((3, 4, 5), np.uint8), np.zeros((2, 3, 4, 1), np.uint8)):
        buffer = io.BytesIO()
        np.save(buffer, array)
        files.append(buffer.getvalue())
    for data in files * 150:
        broken = bytearray(data)
        for _ in range(rng.choice((1, 2, 4))):
            broken[rng.randrange(6, 80)] = rng.randrange(256)
        try:
            assert decode_image(bytes(broken), 1).dtype == np.uint8
        except CorruptImageError:
            refused += 1
    assert 150 < refused < 300


def test_error_survives_pickling():
    error = pickle.loads(pickle.dumps(CorruptImageError("a/b.jpg", "is odd")))
    assert type(error) is CorruptImageError
    assert (error.name, error.reason) == ("a/b.jpg", "is odd")
    assert str(error) == "Cannot read image a/b.jpg: is odd"


def test_masks_keep_their_values():
    classes = (ROWS // 8 * 3 + COLUMNS // 16).astype(np.uint8)
    np.testing.assert_array_equal(decode_mask(encoded(classes, "PNG")), classes)
    palette = Image.fromarray(classes, "L").convert("P")
    palette.putpalette([*range(255, -1, -1)] * 3)
    assert decode_mask(encoded(palette, "PNG")).dtype == np.uint8
    np.testing.assert_array_equal(decode_mask(encoded(palette, "PNG")), classes)
    bits = decode_mask(encoded(Image.fromarray(classes > 5), "PNG"))
    assert bits.dtype == np.uint8
    np.testing.assert_array_equal(bits, classes > 5)
    deep = classes.astype(np.uint16) * 1000
    decoded = decode_mask(encoded(deep, "PNG"))
    assert decoded.dtype == np.int32
    np.testing.assert_array_equal(decoded, deep)


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("RGB", r"RGB image with the colours \(.*and \d+ more\. data\.mask_colours names"),
        ("RGBA", r"RGB image with the colours"),
        ("CMYK", "CMYK image"),
        ("LAB", "LAB image"),
        ("F", "F image"),
    ],
)
def test_colour_images_are_no_masks(mode, message):
    picture = Image.new("LAB", (4, 4)) if mode == "LAB" else Image.fromarray(COLOUR).convert(mode)
    with pytest.raises(UserError, match=f"m.png: a mask has one channel.*{message}") as caught:
        decode_mask(encoded(picture, "TIFF"), "m.png")
    assert not isinstance(caught.value, CorruptImageError)  # which data.on_corrupt="skip" drops


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3)])
def test_encode_png_round_trip(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    channels = 3 if shape[2:] == (3,) else 1
    np.testing.assert_array_equal(
        decode_image(encode_png(pixels), channels), pixels.reshape(5, 7, channels)
    )
