"""Images in folders named after their class, and images with a mask each."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxvision.data.codecs import CorruptImageError
from jaxvision.data.sources.splits import Source, base_splits
from jaxvision.errors import UserError, unknown

VOLUME_SUFFIX = ".npy"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


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


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CorruptImageError(str(path), error.strerror or str(error)) from error


# -- sources --------------------------------------------------------------------------------------


def folder(data: ConfigDict) -> Callable[[str], Source]:
    """images in folders named after their class: DIR/train/<class>/*.jpg"""
    root = Path(data.dir).expanduser()
    names: list[str] = list(data.classes)

    def load(split: str) -> Source:
        if not names:  # every split of an experiment counts classes as its training split does
            counted = base_splits(data.train)[0]
            counted = counted if (root / counted).is_dir() else split
            names.extend(_class_folders(_folder(root, counted, "split")))
        return image_folder(root, split, names)

    return load


def masks(
    data: ConfigDict,
    *,
    masks: str = "{split}annot",
    images: str = "{split}",
    list: str = "",
    rename: Sequence[str] = ("", ""),
) -> Callable[[str], Source]:
    """images, or volumes as .npy, with a mask each: DIR/train/*.jpg and DIR/trainannot/*.png"""
    root = Path(data.dir).expanduser()

    def load(split: str) -> Source:
        return mask_folder(root, split, data.classes, masks, images, list, rename)

    return load


# -- folders --------------------------------------------------------------------------------------


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
