"""Reads files of `torch.save` without PyTorch and without executing anything in them.

Both formats: the zip archive (since PyTorch 1.6) and the older stream of pickles. Pickles are read
by an unpickler that knows a handful of names, those that tensors are made of; any other name is an
error, so that a file cannot run code (the same idea as `torch.load(weights_only=True)`).
"""

import collections
import io
import math
import operator
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from jaxvision.errors import UserError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_DEEPEST = 100  # levels of dicts, lists and tuples; a structure that holds itself has no end
_STORAGES: dict[str, np.dtype] = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("<i1"),
    "ByteStorage": np.dtype("<u1"),
    "BoolStorage": np.dtype("?"),
    "ComplexFloatStorage": np.dtype("<c8"),
    "ComplexDoubleStorage": np.dtype("<c16"),
    "BFloat16Storage": np.dtype("<u2"),  # widened to float32 when a tensor is made of it
}


@dataclass(frozen=True)
class _StorageType:
    name: str


@dataclass
class _Storage:
    """Elements of one storage; filled later in the legacy format."""

    kind: str
    size: int
    data: np.ndarray | None = None


@dataclass(frozen=True)
class _Tensor:
    """A view into a storage: resolved to an array when every storage has been read."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def array(self) -> np.ndarray:
        """A read-only view, so that many tensors of one storage take no more memory than it."""
        data = self.storage.data
        if data is None:
            raise ValueError("a storage is missing")
        if self.offset < 0 or any(n < 0 for n in (*self.shape, *self.stride)):
            raise ValueError("a tensor has negative sizes")
        if 0 not in self.shape:
            last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.stride))
            if last >= len(data):
                raise ValueError("a tensor reaches past the end of its storage")
            # A stride of zero could make a small file ask for any amount of memory.
            if math.prod(self.shape) > len(data):
                raise ValueError("a tensor is larger than its storage (an expanded view)")
        strides = tuple(s * data.itemsize for s in self.stride)
        view = np.lib.stride_tricks.as_strided(
            data[self.offset :], self.shape, strides, writeable=False
        )
        if self.storage.kind == "BFloat16Storage":
            # Through asarray: NumPy makes scalars of the results on 0-d arrays.
            return np.asarray(view.astype(np.uint32) << 16).view(np.float32)
        return view


def _rebuild_tensor(storage: _Storage, offset: int, shape: Any, stride: Any, *_: Any) -> _Tensor:
    sizes, steps = (tuple(map(operator.index, numbers)) for numbers in (shape, stride))
    return _Tensor(storage, operator.index(offset), sizes, steps)


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch", "Size"): tuple,
    ("torch", "device"): lambda *arguments: arguments,
    **{("torch", name): _StorageType(name) for name in _STORAGES},
}


class _Unpickler(pickle._Unpickler):
    """An unpickler without access to anything but `_ALLOWED`.

    The one written in Python: that in C allots memory by numbers in the file before it reads on.
    """

    def __init__(self, file: Any, storage: Callable[[tuple[Any, ...]], _Storage]):
        super().__init__(file, encoding="utf-8")
        self._storage = storage

    def _drop_attributes(self: Any) -> None:
        # State dicts carry a `_metadata`. Other attributes could only change what is allowed.
        self.stack.pop()

    def _refuse_bytearray(self: Any) -> None:
        # Its reader fills as much memory as the file says, and no state dict holds one.
        raise pickle.UnpicklingError("it holds a bytearray")

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,
        pickle.BUILD[0]: _drop_attributes,
        pickle.BYTEARRAY8[0]: _refuse_bytearray,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise UserError(
                f"it holds a Python object ({module}.{name}), which only running its code could "
                "restore. Save the state_dict alone: torch.save(model.state_dict(), file)"
            ) from None

    def persistent_load(self, pid: Any) -> _Storage:
        return self._storage(pid)


def read_torch_file(path: str | Path) -> dict[str, Any]:
    """What `torch.load` would give, with NumPy arrays for tensors; the top level must be a dict.

    Raises:
      UserError: damaged, not a file of torch.save, or it needs code to be run.
    """
    path = Path(path)
    try:
        content = _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)
        content = _resolve(content, {})
    except UserError as error:
        raise UserError(f"Cannot read {path}: {error}") from error
    except Exception as error:  # whatever a damaged archive or pickle leads its reader into
        reason = str(error) or type(error).__name__
        raise UserError(
            f"Cannot read {path}: damaged or no file of torch.save ({reason})."
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not a state_dict.")
    return content


def _dtype(kind: Any) -> np.dtype:
    if not isinstance(kind, _StorageType):
        raise ValueError("unknown storage type")
    return _STORAGES[kind.name]


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("the archive is compressed, which torch.save does not do")
        pickles = [n for n in archive.namelist() if n.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError(f"the archive has {len(pickles) or 'no'} data.pkl")
        root = pickles[0].removesuffix("data.pkl")
        if root + "byteorder" in archive.namelist():
            order = archive.read(root + "byteorder").decode()
            if order != "little":
                raise ValueError(f"{order}-endian files are not supported")
        storages: dict[str, _Storage] = {}

        def storage(pid: tuple[Any, ...]) -> _Storage:
            _, kind, key, _, size = pid
            if key not in storages:
                data = np.frombuffer(archive.read(f"{root}data/{key}"), _dtype(kind))
                if len(data) < size:
                    raise ValueError(f"storage {key} is truncated")
                storages[key] = _Storage(kind.name, size, data)
            return storages[key]

        return _Unpickler(io.BytesIO(archive.read(pickles[0])), storage).load()


def _read_legacy(path: Path) -> Any:
    storages: dict[str, _Storage] = {}

    def storage(pid: tuple[Any, ...]) -> _Storage:
        _, kind, key, _, size, view = pid
        _dtype(kind)
        if view is not None:
            raise ValueError("views of storages, from before PyTorch 0.4, are not supported")
        return storages.setdefault(key, _Storage(kind.name, size))

    with path.open("rb") as opened:
        start = opened.read(32)
        if _LEGACY_MAGIC.to_bytes(10, "little") not in start:
            raise ValueError("no magic number")
        # In memory, because a damaged length then reads what there is, not what it says.
        file = io.BytesIO(start + opened.read())
    _, _, platform = [_Unpickler(file, storage).load() for _ in range(3)]  # magic and version first
    if not platform["little_endian"]:
        raise ValueError("big-endian files are not supported")
    content = _Unpickler(file, storage).load()
    for key in _Unpickler(file, storage).load():
        entry = storages[key]
        dtype = _STORAGES[entry.kind]
        count = int.from_bytes(file.read(8), "little")
        raw = file.read(count * dtype.itemsize)
        if count != entry.size or len(raw) != count * dtype.itemsize:
            raise ValueError(f"storage {key} is truncated")
        entry.data = np.frombuffer(raw, dtype)
    return content


def _resolve(content: Any, done: dict[int, Any], depth: int = 0) -> Any:
    """Tensors to arrays, at any depth; what occurs many times is resolved once."""
    if id(content) in done:
        return done[id(content)]
    if depth > _DEEPEST:
        raise ValueError("it is nested too deeply")
    resolved = content
    if isinstance(content, _Tensor):
        resolved = content.array()
    elif isinstance(content, dict):
        resolved = {key: _resolve(value, done, depth + 1) for key, value in content.items()}
    elif isinstance(content, (list, tuple)):
        resolved = type(content)(_resolve(value, done, depth + 1) for value in content)
    done[id(content)] = resolved
    return resolved
