"""Reads files of `torch.save` without PyTorch and without executing anything in them.

Three formats: the zip archive (since PyTorch 1.6), the stream of pickles before it, and the tar
archive of PyTorch 0.1.
"""

import io
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxvision.errors import UserError
from jaxvision.interop.file_kind import foreign
from jaxvision.interop.torch_pickle import Storage, Unpickler, resolve, storage_dtype, tensor_at

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
# Bytes of all tensors together over the file's: float8 becomes float32, and a network's weights may
# be there under a few names. A small file may have more.
_UNFOLDING, _SMALL = 16, 1 << 20
REMEDY = "In PyTorch, save the state_dict alone: torch.save(model.state_dict(), file)."


def read_torch_file(path: str | Path) -> dict[str, Any]:
    """What `torch.load` would give; the top level must be a dict.

    Tensors are read-only NumPy arrays, of float32 where NumPy has no such type; NumPy's arrays and
    scalars are themselves; sets are tuples. Other objects (`argparse.Namespace`, `Path`) are
    `torch_pickle.Placeholder`.

    Raises:
      UserError: damaged, no file of torch.save, an object, or larger in memory than it may be.
    """
    path = Path(path)
    try:
        if kind := foreign(path):
            raise UserError(f"it is {kind}.")
        limit = _UNFOLDING * path.stat().st_size + _SMALL
        content = resolve(_reader(path)(path), limit)
    except UserError as error:
        raise UserError(f"Cannot read {path}: {error}") from error
    except Exception as error:  # whatever a damaged archive or pickle leads its reader into
        reason = str(error) or type(error).__name__
        raise UserError(
            f"Cannot read {path}: damaged or no file of torch.save ({reason})."
        ) from error
    if not isinstance(content, dict):
        kind = getattr(content, "kind", type(content).__name__)
        raise UserError(f"{path} holds a {kind}, not a state_dict. {REMEDY}")
    return content


def _reader(path: Path) -> Callable[[Path], Any]:
    if zipfile.is_zipfile(path):
        return _read_zip
    return _read_tar if tarfile.is_tarfile(path) else _read_legacy


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("the archive is compressed, which torch.save does not do")
        if sum(member.file_size for member in members) > path.stat().st_size:
            raise ValueError("members of the archive overlap")
        names = archive.namelist()
        if any(name.endswith(("/constants.pkl", "/model.json")) for name in names):
            raise UserError(
                "it is a TorchScript archive (torch.jit.save), which holds code. In PyTorch: "
                "torch.save(torch.jit.load(file).state_dict(), other_file)."
            )
        pickles = [n for n in names if n.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError(f"the archive has {len(pickles) or 'no'} data.pkl")
        root = pickles[0].removesuffix("data.pkl")
        if root + "byteorder" in names:
            order = archive.read(root + "byteorder").decode()
            if order != "little":
                raise ValueError(f"{order}-endian files are not supported")
        storages: dict[str, Storage] = {}

        def persistent(pid: tuple[Any, ...]) -> Storage:
            _, kind, key, _, size = pid
            if key not in storages:
                storages[key] = Storage(storage_dtype(kind), size)
                storages[key].fill(archive.read(f"{root}data/{key}"), key)
            return storages[key]

        raw = archive.read(pickles[0])
        return Unpickler(io.BytesIO(raw), persistent, len(raw)).load()


def _read_legacy(path: Path) -> Any:
    storages: dict[str, Storage] = {}

    def persistent(pid: tuple[Any, ...]) -> Any:
        if pid[0] == "module":  # a class, with its source
            return pid[1]
        _, kind, key, _, size, view = pid
        storage = storages.setdefault(key, Storage(storage_dtype(kind), size))
        return storage if view is None else storage.part(view[1], view[2])

    with path.open("rb") as opened:
        start = opened.read(32)
        if _LEGACY_MAGIC.to_bytes(10, "little") not in start:
            raise ValueError("no magic number")
        # In memory, because a damaged length then reads what there is, not what it says.
        whole = start + opened.read()
    file = io.BytesIO(whole)

    def load() -> Any:
        return Unpickler(file, persistent, len(whole)).load()

    _, _, platform = [load() for _ in range(3)]  # the magic number and the version first
    if not platform["little_endian"]:
        raise ValueError("big-endian files are not supported")
    content = load()
    for key in load():
        _fill(storages[key], file, key)
    return content


def _fill(storage: Storage, file: io.BytesIO, key: Any) -> None:
    """Reads a storage's length and bytes."""
    count = int.from_bytes(file.read(8), "little")
    if count != storage.size:
        raise ValueError(f"storage {key} is truncated")
    storage.fill(file.read(count * storage.dtype.itemsize), key)


def _read_tar(path: Path) -> Any:
    """Members `storages`, `tensors` and `pickle`, each a sequence of pickles and numbers."""
    with tarfile.open(path, "r:") as archive:
        storages_file, tensors_file, pickle_file = (
            _member(archive, name, path.stat().st_size)
            for name in ("storages", "tensors", "pickle")
        )
    objects: dict[Any, Any] = {}

    def persistent(pid: Any) -> Any:
        return pid[0] if isinstance(pid, tuple) else objects[int(pid)]

    def load(file: io.BytesIO) -> Any:
        return Unpickler(file, persistent, len(file.getbuffer())).load()

    for _ in range(load(storages_file)):
        key, _, kind = load(storages_file)
        size = int.from_bytes(storages_file.read(8), "little")
        storages_file.seek(-8, io.SEEK_CUR)
        objects[key] = Storage(storage_dtype(kind), size)
        _fill(objects[key], storages_file, key)
    for key, root, offset, size in load(storages_file):
        objects[key] = objects[root].part(offset, size)
    for _ in range(load(tensors_file)):
        key, storage, _ = load(tensors_file)
        (rank,) = struct.unpack("<q", tensors_file.read(8))
        shape, stride = (struct.unpack(f"<{rank}q", tensors_file.read(8 * rank)) for _ in "ab")
        (offset,) = struct.unpack("<q", tensors_file.read(8))
        objects[key] = tensor_at(objects[storage], offset, shape, stride)
    return load(pickle_file)


def _member(archive: tarfile.TarFile, name: str, largest: int) -> io.BytesIO:
    info = archive.getmember(name)
    file = archive.extractfile(info)
    # A sparse member may say any size.
    if file is None or not info.isreg() or info.issparse() or info.size > largest:
        raise ValueError(f"{name} is no plain file")
    return io.BytesIO(file.read())
