"""Where records come from: TFDS data sets, image folders, image + mask folders, idx files.

A source is random access over encoded records: `len(source)`, `source[i]` is a dict with `image`
(encoded bytes, or a uint8 array where the format stores arrays) and its annotations,
`source.name(i)` names record i in messages. Nothing is decoded here; see `jaxvision.data.codecs`.
"""

import contextlib
import gzip
import hashlib
import io
import logging
import math
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
from ml_collections import ConfigDict

from jaxvision.data.codecs import CorruptImageError
from jaxvision.errors import UserError, unknown

VOLUME_SUFFIX = ".npy"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


class Source(Protocol):
    """Random access over encoded records."""

    @property
    def class_names(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...

    def name(self, index: int) -> str: ...


@dataclass(frozen=True)
class Selection:
    """Some records of a source, in a given order."""

    source: Source
    indices: np.ndarray

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.source.class_names

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.source[int(self.indices[index])]

    def name(self, index: int) -> str:
        return self.source.name(int(self.indices[index]))


@dataclass(frozen=True)
class Files:
    """Records kept as files: an image, and a class index or a mask file for each."""

    images: tuple[Path, ...]
    class_names: tuple[str, ...]
    labels: tuple[int, ...] = ()
    masks: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record: dict[str, Any] = {"image": _read(self.images[index])}
        if self.labels:
            record["label"] = self.labels[index]
        if self.masks:
            record["segmentation"] = _read(self.masks[index])
        return record

    def name(self, index: int) -> str:
        return str(self.images[index])


@dataclass(frozen=True)
class Arrays:
    """Records whose images are arrays of one shape, all in memory."""

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    origin: str = "array"

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.images[index], "label": int(self.labels[index])}

    def name(self, index: int) -> str:
        return f"{self.origin}[{index}]"


@dataclass(frozen=True)
class Tfds:
    """A TFDS data set prepared as ArrayRecord; images stay encoded."""

    reader: Any
    builder_name: str
    class_names: tuple[str, ...]
    keys: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self.reader[index]
        record = {self.keys.get(key, key): value for key, value in record.items()}
        if "label" in record:
            record["label"] = int(record["label"])
        return record

    def name(self, index: int) -> str:
        return f"{self.builder_name}[{index}]"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CorruptImageError(str(path), error.strerror or str(error)) from error


# -- splits ---------------------------------------------------------------------------------------


def base_splits(spec: str) -> list[str]:
    """Names of the whole splits that a spec like `"train[:90%]+extra"` draws from."""
    return [part.split("[")[0].strip() for part in spec.split("+")]


def cut(spec: str, load: Callable[[str], Source]) -> Source:
    """The records of a split spec, written as TFDS writes it.

    Args:
      spec: `"train"`, `"train[:90%]"`, `"test[100:200]"`, `"train[10%:]+extra"`, ...
      load: gives a whole split by name.

    Raises:
      UserError: the spec cannot be parsed, or it selects no record.
    """
    import tensorflow_datasets as tfds

    try:
        tfds.core.ReadInstruction.from_spec(spec)
    except (ValueError, AssertionError) as error:
        raise _unreadable(spec, error) from error
    wholes = {name: load(name) for name in dict.fromkeys(base_splits(spec))}
    sizes = {name: SimpleNamespace(num_examples=len(whole)) for name, whole in wholes.items()}
    try:
        parts = tfds.core.ReadInstruction.from_spec(spec).to_absolute(sizes)
    except (ValueError, AssertionError, AttributeError) as error:  # of TFDS: shards, for one
        raise _unreadable(spec, error) from error
    selections = []
    for part in parts:
        whole = wholes[part.splitname]
        stop = len(whole) if part.to is None else part.to
        selections.append(Selection(whole, np.arange(part.from_ or 0, stop)))
    chosen = selections[0] if len(selections) == 1 else _concatenate(selections)
    if len(chosen) == 0:
        have = ", ".join(f"{name} has {len(whole)}" for name, whole in wholes.items())
        raise UserError(f"Split {spec!r} selects no record ({have}).")
    return chosen


def _unreadable(spec: str, error: Exception) -> UserError:
    return UserError(
        f"Cannot read split {spec!r}. Write it as train, train[:90%], train[1000:2000] "
        f"or train[:50%]+test. ({error})"
    )


@dataclass(frozen=True)
class _Joined:
    """Selections one after another."""

    parts: Sequence[Selection]
    starts: np.ndarray

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.parts[0].class_names

    def __len__(self) -> int:
        return int(self.starts[-1])

    def _locate(self, index: int) -> tuple[Selection, int]:
        part = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.parts[part], index - int(self.starts[part])

    def __getitem__(self, index: int) -> dict[str, Any]:
        part, offset = self._locate(index)
        return part[offset]

    def name(self, index: int) -> str:
        part, offset = self._locate(index)
        return part.name(offset)


def _concatenate(selections: Sequence[Selection]) -> _Joined:
    return _Joined(selections, np.cumsum([0] + [len(s) for s in selections]))


# -- files ----------------------------------------------------------------------------------------


def _by_hash(paths: Sequence[Path], root: Path) -> list[Path]:
    """A fixed order in which any slice mixes the classes, as TFDS stores its records."""
    return sorted(
        paths, key=lambda p: hashlib.md5(p.relative_to(root).as_posix().encode()).digest()
    )


def _images_in(folder: Path, deep: bool = False) -> list[Path]:
    """Image files in a folder and, if `deep`, below; hidden files and folders are left out."""
    found = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if deep and not name.startswith(".")]
        for name in files:
            if name.lower().endswith((*IMAGE_SUFFIXES, VOLUME_SUFFIX)) and not name.startswith("."):
                found.append(Path(parent, name))
    return sorted(found)


def _folder(root: Path, name: str, kind: str) -> Path:
    folder = root / name
    if not root.is_dir():
        raise UserError(f"No such data folder: {root}. Set --config.data.dir.")
    if not folder.is_dir():
        raise unknown(f"{kind} in {root}", name, [p.name for p in root.iterdir() if p.is_dir()])
    return folder


def image_folder(root: Path, split: str, class_names: Sequence[str] = ()) -> Files:
    """`root/split/class/*.jpg`: classes are the sub-folders in alphabetical order.

    Args:
      class_names: the classes in order, where not alphabetical or not all present.

    Raises:
      UserError: no such folder, no image, or a sub-folder that is no class.
    """
    folder = _folder(root, split, "split")
    found = _class_folders(folder)
    names = tuple(class_names) or found
    label_of = {name: label for label, name in enumerate(names)}
    for name in found:
        if name not in label_of:
            raise unknown(f"class folder in {folder}:", name, names)
    paths = [p for name in found for p in _images_in(folder / name, deep=True)]
    if not paths:
        raise UserError(f"No image in {folder}; expected {folder}/<class>/<image>.jpg.")
    paths = _by_hash(paths, folder)
    labels = tuple(label_of[p.relative_to(folder).parts[0]] for p in paths)
    return Files(tuple(paths), names, labels=labels)


def _class_folders(folder: Path) -> tuple[str, ...]:
    entries = (p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    return tuple(sorted(p.name for p in entries))


def mask_folder(
    root: Path,
    split: str,
    class_names: Sequence[str],
    masks: str = "{split}annot",
    images: str = "{split}",
    list: str = "",
    rename: Sequence[str] = ("", ""),
) -> Files:
    """Images and their masks in folders that correspond: `train/a.jpg` and `trainannot/a.png`.

    In all names `{split}` stands for the split. Volumes are `.npy` files in either folder.

    Args:
      masks: folder of the masks, which are called as their images but for the suffix.
      images: folder of the images; sub-folders count.
      list: a text file of the split's names, a line each without suffix; empty takes all images.
      rename: a part of the images' names, and what masks have instead of it.

    Raises:
      UserError: a folder is missing, an image has no mask, or no image is found.
    """
    folder = _folder(root, images.replace("{split}", split), "split")
    mask_root = _folder(root, masks.replace("{split}", split), "mask folder")

    def stem(path: Path, below: Path) -> str:
        return str(path.relative_to(below).with_suffix(""))

    found = _by_hash(_images_in(folder, deep=True), folder)
    if list:
        wanted = _listed(root, list.replace("{split}", split))
        by_name = {stem(p, folder): p for p in found}
        if absent := [name for name in wanted if name not in by_name]:
            raise UserError(f"{len(absent)} listed images are not in {folder}, first {absent[0]}.")
        found = [by_name[name] for name in wanted]
    if not found:
        raise UserError(f"No image in {folder}.")
    by_stem = {stem(p, mask_root): p for p in _images_in(mask_root, deep=True)}
    old, new = rename
    stems = [stem(p, folder) for p in found]
    stems = [s.replace(old, new) if old else s for s in stems]
    missing = [p.name for p, s in zip(found, stems) if s not in by_stem]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(found)} images in {folder} have no mask in {mask_root}, "
            f"first {missing[0]}."
        )
    if not class_names:
        raise UserError("data.source='masks' needs data.classes: the class names in mask order.")
    return Files(tuple(found), tuple(class_names), masks=tuple(by_stem[s] for s in stems))


def _listed(root: Path, name: str) -> Sequence[str]:
    path = root / name
    if not path.is_file():
        near = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise unknown(f"list of images in {path.parent}", path.name, near)
    return [line.strip() for line in path.read_text().splitlines() if line.strip()]


_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_IDX_SPLITS = {"train": "train", "test": "t10k"}


def read_idx(path: Path) -> np.ndarray:
    """Reads an idx file (the MNIST format, http://yann.lecun.com/exdb/mnist/), gzipped or not.

    Raises:
      UserError: not an idx file, or its length does not fit its header.
    """
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"Cannot read {path}: {error}") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _IDX_TYPES:
        raise UserError(f"{path} is not an idx file: it starts with {data[:4]!r}.")
    dtype, rank = np.dtype(_IDX_TYPES[data[2]]), data[3]
    header = 4 + 4 * rank
    if len(data) < header:
        raise UserError(f"{path} is truncated inside its header.")
    shape = struct.unpack(f">{rank}I", data[4:header])
    expected = header + math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise UserError(f"{path} has {len(data)} bytes, its header {shape} asks for {expected}.")
    return np.frombuffer(data, dtype, offset=header).reshape(shape)


def idx_files(root: Path, split: str, class_names: Sequence[str] = ()) -> Arrays:
    """`train-images-idx3-ubyte[.gz]` and its labels; split `test` is the t10k pair.

    Raises:
      UserError: a file is missing or damaged, or the two disagree in length.
    """
    if split not in _IDX_SPLITS:
        raise unknown("split of idx files", split, _IDX_SPLITS)

    def find(kind: str) -> Path:
        stem = f"{_IDX_SPLITS[split]}-{kind}-ubyte"
        for name in (stem, stem + ".gz", stem.replace("-idx", ".idx")):
            if (root / name).is_file():
                return root / name
        raise UserError(f"No {stem}[.gz] in {root or '.'}. Set --config.data.dir.")

    images, labels = read_idx(find("images-idx3")), read_idx(find("labels-idx1"))
    grey_or_colour = images.ndim == 3 or (images.ndim == 4 and images.shape[-1] in (1, 3))
    if images.dtype != np.uint8 or not grey_or_colour:
        raise UserError(
            f"{root}: images of {split} are {images.dtype} {list(images.shape)}; expected uint8 "
            "[count, height, width] or [count, height, width, 1 or 3]."
        )
    if labels.dtype.kind not in "ui" or labels.ndim != 1:
        raise UserError(f"{root}: labels of {split} are {labels.dtype} {list(labels.shape)}.")
    if len(images) != len(labels):
        raise UserError(f"{root}: {len(images)} images but {len(labels)} labels in {split}.")
    names = tuple(class_names) or tuple(str(i) for i in range(int(labels.max(initial=0)) + 1))
    images = images[..., None] if images.ndim == 3 else images
    return Arrays(images, labels, names, origin=str(root / split))


# -- TFDS -----------------------------------------------------------------------------------------

_TFDS_MASKS = ("segmentation", "segmentation_mask", "segmentation_label", "label_map")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back what TFDS says of data sets that are not in its catalogue."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def tfds_builder(name: str, data_dir: str = "", options: dict[str, Any] | None = None):
    """The TFDS builder of `name`, prepared; built-in data sets are prepared on first use.

    Args:
      name: `digits`, `shapes` or a name of the TFDS catalogue, e.g. `"imagenet2012:5.1.0"`.
      data_dir: where prepared data sets live (empty: the TFDS default).
      options: configuration of a built-in data set, e.g. `{"size": 64, "train": 4000}`.

    Raises:
      UserError: unknown data set or option, or one that `jaxvision data prepare` must make first.
    """
    import tensorflow_datasets as tfds

    from jaxvision.data.builders import BUILDERS, make

    if name in BUILDERS:
        with _quiet():
            builder = make(name, options or {}, data_dir or None)
        if not builder.is_prepared():
            logging.getLogger(__name__).info("Preparing %s in %s", name, builder.data_path)
            tfds.disable_progress_bar()
            try:
                with contextlib.redirect_stdout(io.StringIO()):  # it is a matter of seconds
                    builder.download_and_prepare()
            except (RuntimeError, OSError) as error:
                again = make(name, options or {}, data_dir or None)
                if again.is_prepared():  # by another process of this run, at the same time
                    return again
                raise UserError(
                    f"Cannot prepare {name!r} in {builder.data_path}: {str(error).splitlines()[0]}"
                ) from error
        return builder
    if options:
        raise UserError(f"data.options are for built-in data sets; {name!r} takes none.")
    try:
        builder = tfds.builder(name, data_dir=data_dir or None, file_format="array_record")
    except (tfds.core.DatasetNotFoundError, ValueError, AssertionError, OSError) as error:
        short = name.split(":")[0].split("/")[0]
        known = {*BUILDERS, *tfds.list_builders(with_community_datasets=False)}
        if short in known:  # it is the version or the configuration that is unknown
            raise UserError(f"No data set {name!r}: {error}") from error
        raise unknown("data set", short, known) from error
    except ImportError:  # what the builder imports to prepare; reading the prepared needs none
        builder = None
    if builder is None or not builder.is_prepared():
        where = f" --data-dir {data_dir}" if data_dir else ""
        raise UserError(
            f"Data set {name!r} is not prepared. Prepare it once: "
            f"jaxvision data prepare {name}{where}"
        )
    return builder


def _tfds_split(builder: Any, split: str) -> Tfds:
    import tensorflow_datasets as tfds

    features = builder.info.features
    if split not in builder.info.splits:
        raise unknown(f"split of {builder.info.name}", split, builder.info.splits)
    if "image" not in features:
        raise UserError(f"Data set {builder.info.name!r} has no image, but {', '.join(features)}.")
    skip = tfds.decode.SkipDecoding()
    decoders = {k: skip for k, f in features.items() if isinstance(f, tfds.features.Image)}
    keys: dict[str, str] = {}
    for alias in _TFDS_MASKS:
        if alias in decoders and "segmentation" not in keys.values():
            keys[alias] = "segmentation"
    labels = [f for k, f in features.items() if k == "label" and hasattr(f, "names")]
    names = tuple(labels[0].names) if labels else ()
    reader = builder.as_data_source(split=split, decoders=decoders or None)
    return Tfds(reader, builder.info.name, names, keys)


# -- entry ----------------------------------------------------------------------------------------


def open_split(data: ConfigDict, spec: str) -> Source:
    """The records of one split of the configured data.

    Args:
      data: the `data` group of a configuration.
      spec: which split, e.g. `data.train`.

    Raises:
      UserError: whatever is wrong with the folder, the names or the split.
    """
    root = Path(data.dir).expanduser()
    options = data.options.to_dict()
    known = ("masks", "images", "list", "rename") if data.source == "masks" else ()
    for option in options if data.source != "tfds" else ():
        if option not in known:
            raise unknown(f"option of data source {data.source!r}:", option, known)
    if data.source == "tfds":
        builder = tfds_builder(data.name, str(root) if data.dir else "", options)

        def load(name: str) -> Source:
            source = _tfds_split(builder, name)
            return replace(source, class_names=tuple(data.classes) or source.class_names)
    elif data.source == "folder":
        if data.classes:
            names: Sequence[str] = data.classes
        else:  # every split of an experiment counts classes as its training split does
            counted = base_splits(data.train)[0]
            split = counted if (root / counted).is_dir() else base_splits(spec)[0]
            names = _class_folders(_folder(root, split, "split"))

        def load(name: str) -> Source:
            return image_folder(root, name, names)
    elif data.source == "masks":

        def load(name: str) -> Source:
            return mask_folder(root, name, data.classes, **options)
    else:

        def load(name: str) -> Source:
            return idx_files(root, name, data.classes)

    return cut(spec, load)
