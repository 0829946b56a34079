"""Files of `torch.save` read without PyTorch: right values, and no way to harm from a wrong file.

The files in data/ are of tests/parity/generate.py.
"""

import builtins
import contextlib
import io
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvision.errors import UserError
from jaxvision.interop.torch_file import read_torch_file

DATA = Path(__file__).parent / "data"
FORMATS = ["zip.pt", "legacy.pt"]
RAMP = np.arange(24, dtype=np.float32).reshape(4, 6)
EXPECTED = {
    "float32": RAMP,
    "float64": RAMP.astype(np.float64) / 3,
    "float16": RAMP.astype(np.float16),
    "bfloat16": RAMP * 1.5,
    "int64": np.arange(-3, 4),
    "uint8": np.arange(5, dtype=np.uint8),
    "bool": np.array([True, False, True]),
    "complex64": RAMP[0] + 1j * RAMP[1],
    "transposed": RAMP.T,
    "row_of_shared": RAMP[2],
    "column_of_shared": RAMP[:, 1],
    "strided": RAMP[::2, 1::3],
    "scalar": np.array(2.5, np.float32),
    "bfloat16_scalar": np.array(2.5, np.float32),
    "empty": np.empty((0, 3), np.float32),
    "parameter": np.array([1, -1], np.float32),
}


@pytest.mark.parametrize("name", FORMATS)
def test_values(name):
    content = read_torch_file(DATA / name)
    assert (content["epoch"], content["best"]) == (7, 0.5)
    first, *others = content["nested"]["list"]
    np.testing.assert_array_equal(first, RAMP[0])
    assert others == ["text", None]
    assert list(content["state_dict"]) == list(EXPECTED)
    for key, expected in EXPECTED.items():
        value = content["state_dict"][key]
        assert isinstance(value, np.ndarray), key
        assert value.dtype == expected.dtype, key
        np.testing.assert_array_equal(value, expected, key, strict=True)


# -- code in files --------------------------------------------------------------------------------


class Call:
    """Pickled as a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def zipped(path, content, **members):
    """A torch.save archive of this pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", content)
        for name, value in members.items():
            archive.writestr("a/" + name.replace("__", "/"), value)
    return path


def legacy(path, content, little_endian=True):
    """The older format with this pickle and no storages."""
    header = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": little_endian})
    parts = [*(pickle.dumps(part, 2) for part in header), content, pickle.dumps([], 2)]
    path.write_bytes(b"".join(parts))
    return path


@pytest.mark.parametrize("write", [zipped, legacy])
@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    ("function", "arguments", "named"),
    [
        (os.system, ("touch {marker}",), f"{os.system.__module__}.system"),
        (builtins.eval, ("open({marker!r}, 'w')",), "eval"),
        (builtins.exec, ("open({marker!r}, 'w')",), "exec"),
        (builtins.getattr, (OrderedDict, "fromkeys"), "getattr"),
        (os.mkdir, ("{marker}",), "mkdir"),
    ],
)
def test_code_is_refused(tmp_path, write, protocol, function, arguments, named):
    marker = str(tmp_path / "executed")
    arguments = [a.format(marker=marker) if isinstance(a, str) else a for a in arguments]
    path = write(tmp_path / "evil.pt", pickle.dumps({"x": Call(function, *arguments)}, protocol))
    with pytest.raises(UserError, match=named):
        read_torch_file(path)
    assert not os.path.exists(marker)


def test_whole_modules_are_refused_with_the_remedy():
    with pytest.raises(UserError, match=r"torch\.nn\.modules\.linear\.Linear.*state_dict"):
        read_torch_file(DATA / "module.pt")


def test_attributes_in_a_file_change_nothing(tmp_path):
    # BUILD could rename a storage type, or give a function other defaults, for all later files.
    from jaxvision.interop import torch_file

    for target in (b"ctorch\nFloatStorage\n", b"ctorch._utils\n_rebuild_tensor_v2\n"):
        program = b"\x80\x02" + target + b"}(X\x04\x00\x00\x00nameX\x04\x00\x00\x00evilubN}b."
        with pytest.raises(UserError):
            read_torch_file(zipped(tmp_path / "x.pt", program))
    assert torch_file._ALLOWED["torch", "FloatStorage"].name == "FloatStorage"
    assert not vars(torch_file._rebuild_tensor)


def test_nothing_grows_without_bound(tmp_path):
    shared = ["x"]
    for _ in range(60):
        shared = [shared, shared]  # 2 ** 60 leaves when written out
    assert read_torch_file(zipped(tmp_path / "laughs.pt", pickle.dumps({"a": shared})))
    endless = []
    endless.append(endless)
    with pytest.raises(UserError, match="nested"):
        read_torch_file(zipped(tmp_path / "endless.pt", pickle.dumps({"a": endless})))
    memo = b"\x80\x02}r\xff\xff\xff\xff."  # LONG_BINPUT: the C unpickler allots 2 ** 33 pointers
    assert read_torch_file(zipped(tmp_path / "memo.pt", memo)) == {}
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(10**6))
    with pytest.raises(UserError, match="compressed"):
        read_torch_file(tmp_path / "bomb.pt")


# -- damaged files --------------------------------------------------------------------------------


class Pickler(pickle._Pickler):
    """Writes `Tensor` as torch.save does."""

    def persistent_id(self, value):
        return ("storage", TORCH_FLOATS, "0", "cpu", 4) if value is STORAGE else None

    def save_global(self, value, name=None):
        if value is TORCH_FLOATS:
            self.write(b"ctorch\nFloatStorage\n")
        elif value is rebuild:
            self.write(b"ctorch._utils\n_rebuild_tensor_v2\n")
        else:
            super().save_global(value, name)

    dispatch = {**pickle._Pickler.dispatch, type(lambda: 0): save_global}


def rebuild(*_):
    """Stands for torch._utils._rebuild_tensor_v2."""


def TORCH_FLOATS():
    """Stands for torch.FloatStorage."""


STORAGE = object()


def tensor_file(path, offset, shape, stride, **members):
    """A zip file of one tensor, a view of a storage of four floats."""
    file = io.BytesIO()
    view = Call(rebuild, STORAGE, offset, shape, stride, False, OrderedDict())
    Pickler(file, 2).dump({"x": view})
    members = {"data__0": np.arange(4, dtype="<f4").tobytes(), **members}
    return zipped(path, file.getvalue(), **members)


def test_tensor_inside_its_storage(tmp_path):
    content = read_torch_file(tensor_file(tmp_path / "x.pt", 1, (3,), (1,)))
    np.testing.assert_array_equal(content["x"], np.float32([1, 2, 3]), strict=True)


@pytest.mark.parametrize(
    ("offset", "shape", "stride", "reason"),
    [
        (0, (5,), (1,), "past the end"),
        (2, (3,), (1,), "past the end"),
        (0, (2,), (4,), "past the end"),
        (0, (2,), (2**62,), "past the end"),
        (4, (), (), "past the end"),
        (-1, (1,), (1,), "negative"),
        (0, (-1,), (1,), "negative"),
        (3, (4,), (-1,), "negative"),
        (0, (5,), (0,), "larger than its storage"),
        (0, (2**40,), (0,), "larger than its storage"),
        (0, (2**32, 2**32), (0, 0), "larger than its storage"),  # overflows to 0 in int64
        (0, (2, 2), (1,), "damaged"),
        (0, (2.5,), (1,), "damaged"),
        ("0", (2,), (1,), "damaged"),
    ],
)
def test_tensor_outside_its_storage(tmp_path, offset, shape, stride, reason):
    with pytest.raises(UserError, match=reason):
        read_torch_file(tensor_file(tmp_path / "x.pt", offset, shape, stride))


def test_storage_of_another_length_or_order(tmp_path):
    for members in ({"data__0": bytes(15)}, {"data__0": bytes(12)}, {"byteorder": b"big"}):
        with pytest.raises(UserError, match=r"x\.pt"):
            read_torch_file(tensor_file(tmp_path / "x.pt", 0, (2,), (1,), **members))
    with pytest.raises(UserError, match="big-endian"):
        read_torch_file(tensor_file(tmp_path / "x.pt", 0, (2,), (1,), byteorder=b"big"))
    with pytest.raises(UserError, match="big-endian"):
        read_torch_file(legacy(tmp_path / "x.pt", pickle.dumps({}), little_endian=False))


def test_not_a_file_of_torch_save(tmp_path):
    path = tmp_path / "x.pt"
    for content in (b"", b"epoch,loss\n1,0.5\n" * 10, pickle.dumps({}), b"\x80", b"PK\x03\x04"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"x\.pt"):
            read_torch_file(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "hello")
    with pytest.raises(UserError, match=r"no data\.pkl"):
        read_torch_file(path)
    with pytest.raises(UserError, match="holds a list"):
        read_torch_file(zipped(path, pickle.dumps([1])))
    with pytest.raises(UserError, match="holds a list"):
        read_torch_file(legacy(path, pickle.dumps([1])))
    with pytest.raises(UserError):
        read_torch_file(tmp_path)
    with pytest.raises(UserError):
        read_torch_file(tmp_path / "missing.pt")


def error_or_dict(path, content):
    path.write_bytes(content)
    with contextlib.suppress(UserError):
        assert isinstance(read_torch_file(path), dict)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("torch") / "damaged.pt"


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_truncated(scratch, name, data):
    whole = (DATA / name).read_bytes()
    cut = data.draw(st.integers(0, len(whole) - 1))
    scratch.write_bytes(whole[:cut])
    with pytest.raises(UserError):
        read_torch_file(scratch)


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_bytes_changed(scratch, name, data):
    content = bytearray((DATA / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    error_or_dict(scratch, bytes(content))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_bytes_of_the_pickle_changed(scratch, data):
    # Inside a sound archive, where no checksum stands before the unpickler.
    with zipfile.ZipFile(DATA / "zip.pt") as archive:
        content = bytearray(archive.read("zip/data.pkl"))
        members = {n[4:].replace("/", "__"): archive.read(n) for n in archive.namelist()[1:]}
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    zipped(scratch, bytes(content), **members)
    error_or_dict(scratch, scratch.read_bytes())
