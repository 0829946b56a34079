"""idx files that lie: refused before memory is reserved."""

import gzip
import random
import struct
import tracemalloc

import numpy as np
import pytest

from jaxvision.data.sources import idx_files, read_idx
from jaxvision.errors import UserError


def idx(array, kind=0x08):
    shape = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes((0, 0, kind, array.ndim)) + shape + array.tobytes()


IMAGES = np.arange(10 * 5 * 4, dtype=np.uint8).reshape(10, 5, 4)


def header(*shape, kind=0x08):
    return bytes((0, 0, kind, len(shape))) + struct.pack(f">{len(shape)}I", *shape)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (header(*[1] * 100, kind=0x08) + b"x", "declares 100 dimensions; expected 1 to 4"),
        (header() + b"x", "declares 0 dimensions"),
        (header(2**32 - 1, 2**32 - 1) + b"x", "asks for 18446744065119617"),
        (header(2**30, kind=0x0E) + b"x", "asks for 8589934600"),
        (header(3) + b"wxyz", "has 12 bytes|unpacks to more bytes"),
        (header(9) + b"wxyz", "has 12 bytes|unpacks to 12 bytes"),
    ],
)
def test_hostile_idx(tmp_path, data, message, zipped):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(gzip.compress(data) if zipped else data)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=message):
            read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("zipped", [False, True])
def test_mutated_idx(tmp_path, zipped):
    rng, refused, path = random.Random(0), 0, tmp_path / "a"
    whole = gzip.compress(idx(IMAGES), mtime=0) if zipped else idx(IMAGES)
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 2, 4))):
            data[rng.randrange(min(len(data), rng.choice((4, 20, len(data)))))] = rng.randrange(256)
        path.write_bytes(bytes(data[: rng.choice((len(data), rng.randrange(len(data))))]))
        try:
            read_idx(path)
        except UserError:
            refused += 1
    assert 200 < refused <= 300


def test_labels_do_not_claim_classes(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(IMAGES))
    labels = np.full(10, 2**31 - 1, ">i4")
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(labels, 0x0C))
    with pytest.raises(UserError, match=r"a label of train is 2147483647; set data\.classes"):
        idx_files(tmp_path, "train")


def test_images_without_a_pixel(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(np.zeros((10, 0, 4), np.uint8)))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(10, np.uint8)))
    with pytest.raises(UserError, match="none has a pixel"):
        idx_files(tmp_path, "train")
