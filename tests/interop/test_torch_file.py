"""Files of `torch.save` read without PyTorch: right values, and no way to harm from a wrong file.

The files in data/ are of tests/parity/generate.py.
"""

import builtins
import contextlib
import io
import os
import pickle
import struct
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvision.errors import UserError
from jaxvision.interop import torch_pickle
from jaxvision.interop.torch_file import read_torch_file
from jaxvision.interop.torch_pickle import Placeholder
from jaxvision.interop.weight_files import read_state_dict

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


@pytest.mark.parametrize("name", ["training_zip.pt", "training_legacy.pt"])
def test_objects_beside_the_tensors(name):
    content = read_torch_file(DATA / name)
    np.testing.assert_array_equal(content["model"]["weight"], RAMP, strict=True)
    np.testing.assert_array_equal(content["model"]["tagged"], RAMP[1], strict=True)
    np.testing.assert_array_equal(content["model"]["array"], RAMP.T, strict=True)
    np.testing.assert_array_equal(content["big_endian"], np.arange(3, dtype=">i4"), strict=True)
    assert content["best_acc1"] == np.float64(0.75)
    assert content["meters"] == {"loss": [np.float32(0.5)]}
    assert (set(content["seen"]), content["raw"]) == ({1, 2}, b"\xff\0")
    kinds = {key: content[key].kind for key in ("args", "counter", "dtype", "words")}
    assert kinds == {
        "args": "argparse.Namespace",
        "counter": "collections.Counter",
        "dtype": "torch.float16",
        "words": "numpy.ndarray",
    }


def test_kinds_that_numpy_has_not():
    content = read_torch_file(DATA / "new_kinds.pt")
    assert content["uint16"].tolist() == [1, 1, 20, 0]
    for kind in ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"):
        expected = np.array([1, 1.5, 20, 0.25], np.float32)
        np.testing.assert_array_equal(content[kind], expected, strict=True)


# -- the tar archive of PyTorch 0.1 ---------------------------------------------------------------


class TarPickler(pickle._Pickler):
    """Writes numbers as references to tensors, and names of torch, as PyTorch 0.1 did."""

    def persistent_id(self, value):
        return str(value.key) if isinstance(value, Reference) else None

    def save_global(self, value, name=None):
        if value is not TORCH_FLOATS:
            return super().save_global(value, name)
        self.write(b"ctorch\nFloatStorage\n")

    dispatch = {**pickle._Pickler.dispatch, type(lambda: 0): save_global}


class Reference:
    def __init__(self, key):
        self.key = key


def dumped(*parts):
    """Pickles one after the other, and bytes as they are."""
    file = io.BytesIO()
    for part in parts:
        if isinstance(part, bytes):
            file.write(part)
        else:
            TarPickler(file, 2).dump(part)
    return file.getvalue()


def tar_file(path, **changed):
    """Six floats; tensor 20 is 2x3 of them, tensor 21 the second half as a view of storage 11."""
    numbers = struct.pack("<q6f", 6, *range(6))
    matrix = struct.pack("<q2q2qq", 2, 2, 3, 3, 1, 0)
    half = struct.pack("<qqqq", 1, 3, 1, 0)
    state = OrderedDict([("weight", Reference(20)), ("bias", Reference(21))])
    members = {
        "storages": dumped(1, (10, "cpu", TORCH_FLOATS), numbers, [(11, 10, 3, 3)]),
        "tensors": dumped(2, (20, 10, "FloatTensor"), matrix, (21, 11, "FloatTensor"), half),
        "pickle": dumped({"epoch": 3, "state_dict": state}),
        **changed,
    }
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def test_files_of_pytorch_0_1(tmp_path):
    content = read_torch_file(tar_file(tmp_path / "old.pt"))
    assert content["epoch"] == 3
    np.testing.assert_array_equal(
        content["state_dict"]["weight"], np.float32([[0, 1, 2], [3, 4, 5]]), strict=True
    )
    np.testing.assert_array_equal(content["state_dict"]["bias"], np.float32([3, 4, 5]), strict=True)


def test_damaged_files_of_pytorch_0_1(tmp_path):
    path = tmp_path / "old.pt"
    for changed in (
        {"storages": dumped(1, (10, "cpu", TORCH_FLOATS), struct.pack("<q2f", 6, 1, 2), [])},
        {"storages": dumped(10**9)},
        {"tensors": dumped(1, (20, 10, "FloatTensor"), struct.pack("<qqqq", 1, 7, 1, 0))},
        {"tensors": dumped(1, (20, 10, "FloatTensor"), struct.pack("<q", 2**40))},
        {"pickle": b""},
    ):
        with pytest.raises(UserError, match=r"old\.pt"):
            read_torch_file(tar_file(path, **changed))


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
def test_code_stays_a_name(tmp_path, write, protocol, function, arguments, named):
    marker = str(tmp_path / "executed")
    arguments = [a.format(marker=marker) if isinstance(a, str) else a for a in arguments]
    path = write(tmp_path / "evil.pt", pickle.dumps({"x": Call(function, *arguments)}, protocol))
    found = read_torch_file(path)["x"]
    assert isinstance(found, Placeholder)
    assert found.kind.endswith(named)
    assert not os.path.exists(marker)


@pytest.mark.parametrize(
    "program",
    [
        b"(S'touch {}'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'touch {}'\no.",  # OBJ
        b"\x80\x02cos\nsystem\nX\x00\x00\x00\x00\x85\x81.",  # NEWOBJ
        b"\x80\x04cos\nsystem\n)}\x92.",  # NEWOBJ_EX
        b"cos\nsystem\n)R}S'a'\nS'b'\nsb.",  # BUILD with a state
        b"ccopy_reg\n_reconstructor\n(cos\nsystem\nNNtR.",
        b"ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\nN(S'touch {}'\ntNtR.",
    ],
)
def test_no_opcode_calls(tmp_path, program):
    marker = tmp_path / "executed"
    program = program.replace(b"{}", str(marker).encode())
    program = b"(S'x'\n" + program.removesuffix(b".").removeprefix(b"\x80\x02") + b"d."
    assert read_torch_file(zipped(tmp_path / "x.pt", program))["x"].kind == "os.system"
    assert not marker.exists()


def test_values_are_not_called(tmp_path):
    for program in (b"]\x8c\x01a\x85R.", b"X\x01\x00\x00\x00a)\x81.", b"ctorch\nSize\n]R."):
        with pytest.raises(UserError, match="it calls what is no name"):
            read_torch_file(zipped(tmp_path / "x.pt", b"\x80\x04" + program))


def test_whole_modules_are_named_with_the_remedy(tmp_path):
    with pytest.raises(UserError, match=r"torch\.nn\.modules\.linear\.Linear.*state_dict"):
        read_state_dict(DATA / "module.pt")
    path = zipped(tmp_path / "net.pt", b"cnets\nNet\n)\x81}b.")
    with pytest.raises(UserError, match=r"holds a nets\.Net, not a state_dict\. In PyTorch, save"):
        read_torch_file(path)


def test_attributes_in_a_file_change_nothing(tmp_path):
    # BUILD could give a function other defaults, for all later files.
    program = b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n"
    program += b"}(X\x04\x00\x00\x00nameX\x04\x00\x00\x00evilubs."
    read_torch_file(zipped(tmp_path / "x.pt", program))
    assert not vars(torch_pickle._rebuild_tensor)


def test_nothing_grows_without_bound(tmp_path):
    shared = ["x"]
    for _ in range(60):
        shared = [shared, shared]  # 2 ** 60 leaves when written out
    assert read_torch_file(zipped(tmp_path / "laughs.pt", pickle.dumps({"a": shared})))
    endless = []
    endless.append(endless)
    with pytest.raises(UserError, match="nested"):
        read_torch_file(zipped(tmp_path / "endless.pt", pickle.dumps({"a": endless})))
    copies = b"(lp0\n" + b"Na" * 1000 + b"0(" + b"ctorch\nSize\n(g0\ntR" * 1000 + b"l."
    with pytest.raises(UserError, match="copies its own parts"):
        read_torch_file(zipped(tmp_path / "copies.pt", copies))
    memo = b"\x80\x02}r\xff\xff\xff\xff."  # LONG_BINPUT: the C unpickler allots 2 ** 33 pointers
    assert read_torch_file(zipped(tmp_path / "memo.pt", memo)) == {}
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(10**6))
    with pytest.raises(UserError, match="compressed"):
        read_torch_file(tmp_path / "bomb.pt")


def test_tensors_that_share_memory_may_not_unfold(tmp_path):
    # As two hundred times one storage of 40 MB did: 15 GB, once each tensor is an array of its own.
    path = tmp_path / "x.pt"
    member = {"data__0": bytes(400_000)}
    views = [view(0, (100_000,), (1,)) for _ in range(10)]
    assert len(read_torch_file(tensors_file(path, views, **member))) == 10  # 4 MB, 10 times
    views = [view(0, (1000, 100), (100, 1)) for _ in range(200)]
    with pytest.raises(UserError, match=r"unfold to 80 MB, more than the 8 MB"):
        read_torch_file(tensors_file(path, views, **member))


def test_members_that_overlap(tmp_path):
    path = tensor_file(tmp_path / "x.pt", 0, (4,), (1,))
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo("a/data/0")
    raw = path.read_bytes()
    size = entry.file_size.to_bytes(4, "little")
    at = raw.rindex(b"PK\x01\x02")
    assert raw[at + 20 : at + 28] == size * 2
    path.write_bytes(raw[: at + 24] + (10**6).to_bytes(4, "little") + raw[at + 28 :])
    with pytest.raises(UserError, match="overlap"):
        read_torch_file(path)


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
    members = {"data__0": np.arange(4, dtype="<f4").tobytes(), **members}
    return tensors_file(path, [view(offset, shape, stride)], **members)


def view(offset, shape, stride):
    return Call(rebuild, STORAGE, offset, shape, stride, False, OrderedDict())


def tensors_file(path, views, **members):
    """A zip file of several tensors, `x`, `x1`, ..., of one storage of floats."""
    file = io.BytesIO()
    Pickler(file, 2).dump({f"x{i or ''}": one for i, one in enumerate(views)})
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
        (0, (2**40,), (0,), "unfold to"),
        (0, (2**32, 2**32), (0, 0), "unfold to"),  # overflows to 0 in int64
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
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", pickle.dumps({}))
        archive.writestr("net/constants.pkl", pickle.dumps(()))
    with pytest.raises(UserError, match=r"TorchScript archive.*torch\.jit\.load\(file\)\.state"):
        read_torch_file(path)
    with pytest.raises(UserError):
        read_torch_file(tmp_path)
    with pytest.raises(UserError):
        read_torch_file(tmp_path / "missing.pt")


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
        (b"\n <!DOCTYPE html><html>", "an HTML page"),
        (b'<?xml version="1.0"?><Error>', "an XML page"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"\x1f\x8b\x08", "compressed by gzip"),
    ],
)
def test_other_files_are_called_what_they_are(tmp_path, suffix, content, named):
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"Cannot read .*{named}"):
        read_state_dict(path)


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


@pytest.mark.parametrize("name", ["zip", "training_zip"])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_bytes_of_the_pickle_changed(scratch, name, data):
    # Inside a sound archive, where no checksum stands before the unpickler.
    with zipfile.ZipFile(DATA / f"{name}.pt") as archive:
        content = bytearray(archive.read(f"{name}/data.pkl"))
        members = {
            n.removeprefix(f"{name}/").replace("/", "__"): archive.read(n)
            for n in archive.namelist()[1:]
        }
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    zipped(scratch, bytes(content), **members)
    error_or_dict(scratch, scratch.read_bytes())
