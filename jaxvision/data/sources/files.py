"""Images in folders named after their class, and images with a mask each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxvision.data.codecs import CorruptImageError
from jaxvision.data.sources import unsplit
from jaxvision.data.sources.splits import Source, base_splits
from jaxvision.data.sources.walk import has_image, images_below
from jaxvision.errors import UserError, unknown

# Where images and masks lie in folders without splits.
_PAIRS = (
    ("images", "masks"),
    ("images", "annotations"),
    ("images", "labels"),
    ("imgs", "masks"),
    ("image", "mask"),
    ("JPEGImages", "SegmentationClass"),
)


@dataclass(frozen=True)
class Files:
    """Records kept as files: an image, and a class index, several, or a mask file for each."""

    images: tuple[Path, ...]
    class_names: tuple[str, ...]
    labels: tuple[int, ...] = ()
    masks: tuple[Path, ...] = ()
    label_sets: tuple[tuple[int, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record: dict[str, Any] = {"image": read_file(self.images[index])}
        if self.labels:
            record["label"] = self.labels[index]
        if self.label_sets:
            record["labels"] = self.label_sets[index]
        if self.masks:
            record["segmentation"] = read_file(self.masks[index])
        return record

    def name(self, index: int) -> str:
        return str(self.images[index])

    def image_file(self, index: int) -> Path:
        return self.images[index]


def read_file(path: Path) -> bytes:
    """The contents of the file of an image or mask.

    Raises:
      CorruptImageError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise CorruptImageError(str(path), error.strerror or str(error)) from error


# -- sources --------------------------------------------------------------------------------------


def folder(data: ConfigDict) -> Callable[[str], Source]:
    """images in folders named after their class: DIR/train/<class>/*.jpg, or DIR/<class>/*.jpg"""
    root = Path(data.dir).expanduser()
    names: list[str] = list(data.classes)

    def load(split: str) -> Source:
        whole = root.is_dir() and not unsplit.has_splits(root, data)
        if not names:  # every split of an experiment counts classes as its training split does
            counted = base_splits(data.train)[0]
            counted = counted if (root / counted).is_dir() else split
            names.extend(_class_folders(root if whole else _folder(root, counted, "split")))
        if not whole:
            return image_folder(root, split, names)
        _check_classes_alone(root)
        return _part(_labelled(root, names), root, split, data)

    return load


def images(data: ConfigDict) -> Callable[[str], Source]:
    """images alone, in folders of any depth: DIR/train/**/*.jpg, or DIR/**/*.jpg"""
    root = Path(data.dir).expanduser()

    def load(split: str) -> Source:
        whole = root.is_dir() and not unsplit.has_splits(root, data)
        place = root if whole else _folder(root, split, "split")
        found = Files(tuple(images_below(place)), ())
        if not found.images:
            raise UserError(f"No image in {place}.")
        return _part(found, root, split, data) if whole else found

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
        places = images, masks
        usual = places == ("{split}", "{split}annot") and not list
        if usual and root.is_dir() and not unsplit.has_splits(root, data):
            places = _pair(root, data)
        found = mask_folder(root, split, data.classes, places[1], places[0], list, rename)
        if "{split}" in places[0] + list:
            return found
        return _part(found, root, split, data)

    return load


# -- folders --------------------------------------------------------------------------------------


def _by_hash(paths: Sequence[Path], root: Path) -> list[Path]:
    """A fixed order in which any slice mixes the classes, as TFDS stores its records."""
    return sorted(paths, key=lambda p: unsplit.digest(p, root))


def _part(files: Files, root: Path, split: str, data: ConfigDict) -> Files:
    """Those of all files that are in a split, where there are no folders of splits."""
    chosen = set(unsplit.part(files.images, root, split, data))
    kept = [index for index, path in enumerate(files.images) if path in chosen]
    picked = {
        key: tuple(getattr(files, key)[index] for index in kept)
        for key in ("images", "labels", "masks")
        if getattr(files, key)
    }
    return replace(files, **picked)


def _folder(root: Path, name: str, kind: str) -> Path:
    folder = root / name
    if not root.is_dir():
        raise UserError(f"No such data folder: {root}. Set --config.data.dir.")
    if not folder.is_dir():
        raise unknown(f"{kind} in {root}", name, unsplit.folders_in(root))
    return folder


def image_folder(root: Path, split: str, class_names: Sequence[str] = ()) -> Files:
    """`root/split/class/*.jpg`: classes are the sub-folders with images, in alphabetical order.

    Args:
      class_names: the classes in order, where not alphabetical or not all present.

    Raises:
      UserError: no such folder, no image, or a sub-folder that is no class.
    """
    return _labelled(_folder(root, split, "split"), class_names)


def _labelled(folder: Path, class_names: Sequence[str]) -> Files:
    found = _class_folders(folder)
    names = tuple(class_names) or found
    label_of = {name: label for label, name in enumerate(names)}
    for name in found:
        if name not in label_of:
            raise unknown(f"class folder in {folder}:", name, names)
    paths = [p for name in found for p in images_below(folder / name)]
    if not paths:
        raise UserError(f"No image in {folder}; expected {folder}/<class>/<image>.jpg.")
    paths = _by_hash(paths, folder)
    labels = tuple(label_of[p.relative_to(folder).parts[0]] for p in paths)
    return Files(tuple(paths), names, labels=labels)


def _class_folders(folder: Path) -> tuple[str, ...]:
    return tuple(name for name in unsplit.folders_in(folder) if has_image(folder / name))


def _check_classes_alone(root: Path) -> None:
    """Checks that the folders in `root` can be classes.

    Raises:
      UserError: they are fewer than two, or data sets themselves.
    """
    names = _class_folders(root)
    expected = (
        f"{root} is no data set of classes; expected {root}/train/<class>/<image>.jpg, or "
        f"{root}/<class>/<image>.jpg with two classes or more"
    )
    for name in names:
        if {"train", "test"} & set(unsplit.folders_in(root / name)):
            raise UserError(f"{expected}. Did you mean data.dir={root / name}?")
    if len(names) < 2:
        have = ", ".join(names) or "none"
        raise UserError(f"{expected}. Folders with images: {have}.")


def _pair(root: Path, data: ConfigDict) -> tuple[str, str]:
    """The places of images and masks in a folder that has none for each split.

    Raises:
      UserError: they are not found.
    """
    for images, masks in _PAIRS:
        if (root / images).is_dir() and (root / masks).is_dir():
            if unsplit.has_splits(root / images, data):
                return f"{images}/{{split}}", f"{masks}/{{split}}"
            return images, masks
    have = ", ".join(unsplit.folders_in(root)[:10]) or "none"
    raise UserError(
        f"{root} is no data set of masks; expected images in {root}/train and masks in "
        f"{root}/trainannot, or {root}/images and {root}/masks. Other places are named by "
        f"data.options (images, masks). Folders there: {have}."
    )


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
      masks: folder of the masks, which are called as their images but for the suffix, or with
        another behind it (`a.jpg.png`); the latter may lie beside their images.
      images: folder of the images; sub-folders count.
      list: a text file of the split's names, a line each without suffix; empty takes all images.
      rename: a part of the images' names, and what masks have instead of it.

    Raises:
      UserError: a folder is missing, an image has no mask or two, or no image is found.
    """
    folder = _folder(root, images.replace("{split}", split), "split")
    mask_root = _folder(root, masks.replace("{split}", split), "mask folder")

    def stem(path: Path, below: Path) -> str:
        return str(path.relative_to(below).with_suffix(""))

    found, mask_files = _by_hash(images_below(folder), folder), images_below(mask_root)
    if mask_root.samefile(folder):
        beside = set(found)
        mask_files = [p for p in found if p.with_suffix("") in beside]
        found = [p for p in found if p.with_suffix("") not in beside]
    if list:
        wanted = listed(root, list.replace("{split}", split))
        by_name = {stem(p, folder): p for p in found}
        if absent := [name for name in wanted if name not in by_name]:
            raise UserError(f"{len(absent)} listed images are not in {folder}, first {absent[0]}.")
        found = [by_name[name] for name in wanted]
    if not found:
        raise UserError(f"No image in {folder}.")
    by_stem: dict[str, tuple[Path, ...]] = {}
    for path in mask_files:
        name = stem(path, mask_root)
        by_stem[name] = (*by_stem.get(name, ()), path)
    old, new = rename
    stems = [stem(p, folder) for p in found]
    stems = [s.replace(old, new) if old else s for s in stems]
    fitting = [by_stem.get(s) or by_stem.get(s + p.suffix, ()) for p, s in zip(found, stems)]
    for several in fitting:
        if len(several) > 1:
            raise UserError(f"Two masks of one name: {several[0]} and {several[1].name}.")
    missing = [p.name for p, paths in zip(found, fitting) if not paths]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(found)} images in {folder} have no mask in {mask_root}, "
            f"first {missing[0]}."
        )
    if not class_names:
        raise UserError("data.source='masks' needs data.classes: the class names in mask order.")
    return Files(tuple(found), tuple(class_names), masks=tuple(paths[0] for paths in fitting))


def listed(root: Path, name: str) -> Sequence[str]:
    """The lines of a file below a folder, without empty ones.

    Raises:
      UserError: there is no such file.
    """
    path = root / name
    if not path.is_file():
        near = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise unknown(f"list of images in {path.parent}", path.name, near)
    return [line.strip() for line in path.read_text().splitlines() if line.strip()]
