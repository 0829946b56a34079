"""Boxes in the XML files of PASCAL VOC: Everingham et al., 2010, doi:10.1007/s11263-009-0275-4."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from ml_collections import ConfigDict

from jaxvision.data.sources import boxes, unsplit
from jaxvision.data.sources.boxes import DataError
from jaxvision.data.sources.splits import Source, base_splits
from jaxvision.data.sources.walk import IMAGE_SUFFIXES
from jaxvision.errors import UserError, unknown
from jaxvision.progress import tracked

_LARGEST = 16 * 2**20  # bytes of an XML file; those of VOC have a few thousand
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def voc(
    data: ConfigDict,
    *,
    images: str = "JPEGImages",
    annotations: str = "Annotations",
    lists: str = "ImageSets/Main",
    from_one: bool = True,
    check_sizes: bool = True,
) -> Callable[[str], Source]:
    """images with boxes in VOC's XML: DIR/JPEGImages, DIR/Annotations, DIR/ImageSets/Main/train.txt

    Objects that are marked as difficult are crowds here: neither found nor missed.

    Args:
      data: the group of a configuration.
      images: folder of the images.
      annotations: folder of the XML files, which are called as the images.
      lists: folder of a text file for each split, a name a line. Where there is none, a hash of its
        name puts each file into `train` or `test`.
      from_one: whether pixels are counted from 1 and the last one belongs to a box, as VOC's are:
        (xmin - 1, ymin - 1, xmax, ymax) are then its sides, so that a box of the whole image, 1 to
        its width, spans 0 to its width. Turn it off for tools that write the sides themselves.
      check_sizes: whether images must have the size that their file says.

    Raises:
      UserError: see `DataError`; or a folder or list is missing.
    """
    root = Path(data.dir).expanduser()
    names = list(data.classes)

    def read(split: str) -> list[_Annotated]:
        return _annotated(root / annotations, _stems(root, images, lists, split, data))

    def load(split: str) -> Source:
        _check_folders(root, (images, annotations))
        found, what = read(split), f"{root}, split {split!r}"
        if not names:  # every split of an experiment counts classes as its training split does
            counted = base_splits(data.train)[0]
            listed = counted != split and (root / lists / f"{counted}.txt").is_file()
            training = read(counted) if listed else found
            names.extend(sorted({name for one in training for name in one.classes}))
        if not names:
            raise DataError(
                [f"No file in {root / annotations} of data.train has an object; give data.classes."]
            )
        remedy = " data.classes names them." if data.classes else " They are those of data.train."
        used = [(name, f"{one.stem}.xml") for one in found for name in one.classes]
        boxes.stop_at(boxes.unknown_classes(used, names, remedy))
        paths = _image_files(root / images, [one.stem for one in found])
        boxes.check_images(paths, what, root, data.on_corrupt == "skip")
        sizes = np.array([one.size for one in found], np.int32) if check_sizes else None
        return _files(found, paths, names, what, from_one, sizes)

    return load


@dataclass(frozen=True)
class _Annotated:
    """What an XML file says: n classes, corners and flags, and (height, width)."""

    stem: str
    classes: tuple[str, ...]
    corners: tuple[tuple[float, ...], ...]
    difficult: tuple[bool, ...]
    size: tuple[int, int]


def _files(
    found: Sequence[_Annotated],
    paths: Sequence[Path],
    names: Sequence[str],
    what: str,
    from_one: bool,
    sizes: np.ndarray | None,
) -> boxes.BoxFiles:
    """The records of the files; all classes are among the names."""
    place = {name: index for index, name in enumerate(names)}
    corners = np.array([c for one in found for c in one.corners], np.float64).reshape(-1, 4)
    if from_one:
        # A box of which the file says that it ends where it begins is a slip, not one pixel.
        has_area = np.all(corners[:, 2:] > corners[:, :2], axis=1)
        corners[has_area, :2] -= 1
    return boxes.with_objects(
        what,
        paths,
        names,
        np.repeat(np.arange(len(found)), [len(one.classes) for one in found]),
        {
            "boxes": corners.astype(np.float32),
            "box_label": np.array([place[n] for one in found for n in one.classes], np.int32),
            "box_crowd": np.array([flag for one in found for flag in one.difficult], bool),
        },
        sizes=sizes,
    )


# -- which files ----------------------------------------------------------------------------------


def _check_folders(root: Path, needed: Sequence[str]) -> None:
    """Raises:
    UserError: a folder of the layout is missing; it names one near that has it.
    """
    missing = [name for name in needed if not (root / name).is_dir()]
    if missing:
        near = [*root.glob("*"), *root.glob("*/*")]
        whole = [p for p in sorted(near) if all((p / name).is_dir() for name in needed)]
        hint = f" Did you mean data.dir={whole[0]}?" if whole else ""
        raise UserError(
            f"No folder {root / missing[0]}; expected {' and '.join(needed)} in data.dir.{hint}"
        )


def _stems(root: Path, images: str, lists: str, split: str, data: ConfigDict) -> list[str]:
    """The names of a split, without suffix.

    Raises:
      UserError: there is no such split, or a name is listed twice or leads out of the folder.
    """
    path = root / lists / f"{split}.txt"
    if not path.is_file():
        known = [p.stem for p in (root / lists).glob("*.txt")]
        if known:
            raise unknown(f"split in {root / lists}", split, known)
        there = sorted((root / images).iterdir())
        files = [p for p in there if p.suffix.lower() in IMAGE_SUFFIXES]
        return [p.stem for p in unsplit.part(files, root / images, split, data)]
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError([f"{path} is not UTF-8: {error}."]) from error
    stems = [line.strip() for line in lines if line.strip()]
    if not stems:
        raise DataError([f"{path} lists no image."])
    seen: set[str] = set()
    problems: list[str] = []
    for stem in stems:
        if boxes.inside(root, stem) is None:
            problems.append(f"{path} lists {stem!r}; expected the name of an image below {root}.")
        if stem in seen:
            problems.append(f"{path} lists {stem!r} twice.")
        seen.add(stem)
    boxes.stop_at(problems)
    return stems


def _image_files(folder: Path, stems: Iterable[str]) -> list[Path]:
    """The image of each name, by whatever suffix it has; by that of VOC where there is none."""
    there: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), reverse=True):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            there[path.stem] = path
    return [there.get(stem, folder / f"{stem}.jpg") for stem in stems]


# -- the files ------------------------------------------------------------------------------------


def _annotated(folder: Path, stems: Sequence[str]) -> list[_Annotated]:
    """What the XML files of these names say.

    Raises:
      DataError: some are missing or wrong.
    """
    found: list[_Annotated] = []
    problems: list[str] = []
    for stem in tracked(stems, "Reading annotations", len(stems)):
        path = folder / f"{stem}.xml"
        try:
            found.append(_read(path, stem))
        except DataError as error:
            problems += error.problems
    boxes.stop_at(problems)
    return found


class _Plain(ElementTree.TreeBuilder):
    """Refuses what lets a small file stand for a large one, or for another."""

    def doctype(self, name: str, public: Any, system: Any) -> None:
        raise DataError([f"it declares a document type ({name}); annotations have none"])


def _read(path: Path, stem: str) -> _Annotated:
    """Raises:
    DataError: the file is missing, no XML, or no annotation.
    """
    try:
        content = path.read_bytes() if path.stat().st_size <= _LARGEST else None
        if content is None:
            raise DataError([f"{path} has more than {_LARGEST} bytes; annotations have fewer."])
        tree = ElementTree.fromstring(content, ElementTree.XMLParser(target=_Plain()))
    except OSError as error:
        raise DataError([f"Cannot read the annotation {path}: {error.strerror}."]) from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # or an unknown encoding
        raise DataError([f"{path} is no valid XML: {error}."]) from error
    except DataError as error:
        text = error.problems[0]
        raise DataError([text if str(path) in text else f"{path} is refused: {text}."]) from error
    try:
        objects = tree.findall("object")
        return _Annotated(
            stem,
            tuple(_text(one, "name") for one in objects),
            tuple(tuple(_number(one, f"bndbox/{c}") for c in _CORNERS) for one in objects),
            tuple(_number(one, "difficult", 0) > 0 for one in objects),
            (int(_number(tree, "size/height", 0)), int(_number(tree, "size/width", 0))),
        )
    except ValueError as error:
        raise DataError([f"{path}: {error}."]) from error


def _text(element: ElementTree.Element, tag: str, default: str | None = None) -> str:
    """Raises:
    ValueError: there is no such tag, or nothing in it.
    """
    text = (element.findtext(tag) or "").strip() or default
    if text is None:
        raise ValueError(f"an <{element.tag}> has no <{tag.replace('/', '><')}>")
    return text


def _number(element: ElementTree.Element, tag: str, default: int | None = None) -> float:
    """Raises:
    ValueError: there is no such tag, or no finite number in it.
    """
    text = _text(element, tag, None if default is None else str(default))
    try:
        value = float(text)
    except ValueError:
        value = np.inf
    if not abs(value) < 1e9:
        raise ValueError(f"<{tag.replace('/', '><')}> is {text!r}; expected a number")
    return value
