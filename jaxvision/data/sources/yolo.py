"""Boxes in the text files of YOLO: a line `class cx cy w h` an object, in parts of the image."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jaxtyping import Float
from ml_collections import ConfigDict

from jaxvision.data import notices
from jaxvision.data.sources import boxes, unsplit
from jaxvision.data.sources.boxes import DataError
from jaxvision.data.sources.splits import Source
from jaxvision.data.sources.walk import images_below
from jaxvision.errors import UserError, unknown
from jaxvision.progress import tracked

# Where images and labels lie.
_PLACES = (
    ("images/{split}", "labels/{split}"),
    ("{split}/images", "{split}/labels"),
    ("images", "labels"),
    ("{split}", "{split}"),
)
# Files that name the classes, a YAML with `names` or a name a line.
_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "config.yaml", "classes.txt", "obj.names")
_LARGEST = 2**20  # bytes of a file of names


def yolo(
    data: ConfigDict, *, images: str = "", labels: str = "", names: str = ""
) -> Callable[[str], Source]:
    """images with boxes in YOLO's text files: DIR/images/train/*.jpg, DIR/labels/train/*.txt

    An image without a text file has no object. Classes are named by `data.classes`, or by a file.

    Args:
      data: the group of a configuration.
      images: folder of the images, in which `{split}` stands for the split.
      labels: folder of the text files, which are called as the images, alike.
      names: file that names the classes: a YAML with `names`, or a name a line.

    Raises:
      UserError: see `DataError`; or a folder or the classes' names are missing.
    """
    root = Path(data.dir).expanduser()

    def load(split: str) -> Source:
        given = _places(root, split, images, labels, data)
        folder, label_folder = (root / place.replace("{split}", split) for place in given)
        class_names = tuple(data.classes) or _class_names(root, label_folder, names)
        paths = sorted(images_below(folder), key=lambda path: unsplit.digest(path, folder))
        if "{split}" not in given[0]:
            paths = unsplit.part(paths, folder, split, data)
        if not paths:
            raise DataError([f"No image in {folder}."])
        texts = _texts(paths, folder, label_folder)
        return _files(paths, texts, class_names, f"{label_folder}, split {split!r}")

    return load


def _files(
    paths: Sequence[Path], texts: Sequence[Path], class_names: Sequence[str], what: str
) -> boxes.BoxFiles:
    """The records of these images and of their labels.

    Raises:
      DataError: a label is wrong.
    """
    problems: list[str] = []
    tables = [
        _read(text, len(class_names), problems)
        for text in tracked(texts, "Reading labels", len(texts))
    ]
    boxes.stop_at(problems)
    table = np.concatenate([*tables, np.zeros((0, 5))])
    centre, half = table[:, 1:3], table[:, 3:] / 2
    return boxes.with_objects(
        what,
        paths,
        class_names,
        np.repeat(np.arange(len(paths)), [len(one) for one in tables]),
        {
            "relative_boxes": np.concatenate([centre - half, centre + half], 1).astype(np.float32),
            "box_label": table[:, 0].astype(np.int32),
        },
    )


# -- places ---------------------------------------------------------------------------------------


def _unsplit(folder: Path, data: ConfigDict) -> bool:
    """Whether all images of a folder and of one below are to be split by their names."""
    return not unsplit.has_splits(folder, data) and len(unsplit.folders_in(folder)) <= 1


def _places(root: Path, split: str, images: str, labels: str, data: ConfigDict) -> tuple[str, str]:
    """The folders of images and labels below `root`, `{split}` in them.

    Raises:
      UserError: there are none.
    """
    if not root.is_dir():
        raise UserError(f"No such data folder: {root}. Set --config.data.dir.")
    places = [(images or a, labels or b) for a, b in _PLACES]
    for place in places:
        there = all((root / part.replace("{split}", split)).is_dir() for part in place)
        if there and ("{split}" in place[0] or images or _unsplit(root / place[0], data)):
            return place
    folders = sorted({
        p.name
        for first, _ in places
        for above in [root / first.partition("{split}")[0]]
        if "{split}" in first and above.is_dir()
        for p in above.iterdir()
        if p.is_dir() and p.name not in ("images", "labels")
    })  # fmt: skip
    expected = " and ".join(part.replace("{split}", split) for part in places[0])
    hint = str(unknown("split", split, folders)) if folders else "There is no folder of a split."
    raise UserError(
        f"{root} is no YOLO data set with a split {split!r}: expected {expected}. {hint} "
        "data.train, data.validation and data.test name the splits, which may be cut (train[:80%], "
        "train[80%:]); data.options (images, labels) name other places."
    )


def _class_names(root: Path, labels: Path, given: str) -> tuple[str, ...]:
    """The names of the classes in order, of the file that has them.

    Raises:
      UserError: there is none, or it names none.
    """
    if given:
        path = root / given
        if not path.is_file():
            raise UserError(f"No such file of class names: {path} (data.options.names).")
        return _named(path)
    above = [folder for folder in labels.parents if folder.is_relative_to(root)]
    for folder in reversed(above):
        for name in _NAMES:
            if (folder / name).is_file():
                return _named(folder / name)
    raise UserError(
        f"The classes have no names: give data.classes, or a file in {root} "
        f"({', '.join(_NAMES)}; another is named by data.options.names)."
    )


def _named(path: Path) -> tuple[str, ...]:
    """Raises:
    DataError: the file names no classes.
    """
    if path.stat().st_size > _LARGEST:
        raise DataError([f"{path} has more than {_LARGEST} bytes; it should name the classes."])
    try:
        text = path.read_text("utf-8-sig")
        if path.suffix.lower() not in (".yaml", ".yml"):
            return _checked([line.strip() for line in text.splitlines() if line.strip()], path)
        content = yaml.safe_load(text)
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError, ValueError) as error:
        raise DataError([f"{path} cannot be read: {error}."]) from error
    found = content.get("names") if isinstance(content, Mapping) else None
    if isinstance(found, Mapping):
        if sorted(found, key=str) != sorted(range(len(found)), key=str):
            raise DataError(
                [f"{path}: 'names' has the keys {list(found)[:20]}; expected 0, 1, ..."]
            )
        found = [found[index] for index in range(len(found))]
    return _checked(found, path)


def _checked(names: Any, path: Path) -> tuple[str, ...]:
    """Raises:
    DataError: these are no names, or not all different.
    """
    if not isinstance(names, list) or not names:
        raise DataError([f"{path} names no class: expected 'names', a list of them."])
    texts = tuple(str(name) for name in names if isinstance(name, (str, int, float)))
    if len(texts) < len(names) or len(set(texts)) < len(texts):
        raise DataError([f"{path}: the class names are not all different texts, as {texts[:20]}."])
    return texts


# -- labels ---------------------------------------------------------------------------------------


def _texts(paths: Sequence[Path], folder: Path, labels: Path) -> list[Path]:
    """The file of labels of each image, be it there or not.

    Raises:
      DataError: two images share one, or no image has one.
    """
    texts = [labels / path.relative_to(folder).with_suffix(".txt") for path in paths]
    first: dict[Path, Path] = {}
    problems = [
        f"{first[text]} and {path.name} have the same labels, {text}."
        for path, text in zip(paths, texts)
        if first.setdefault(text, path) != path
    ]
    boxes.stop_at(problems)
    missing = boxes.absent(texts)
    if len(missing) == len(texts):
        where = boxes.elsewhere(missing, labels, "labels")
        raise DataError([f"None of {len(texts)} images has labels, first {missing[0]}. {where}"])
    if missing:
        notices.once(
            f"no labels {labels}",
            f"{len(missing)} of {len(texts)} images have no file in {labels}, and so no object, "
            f"first {missing[0].name}.",
        )
    return texts


def _read(path: Path, classes: int, problems: list[str]) -> Float[np.ndarray, "n 5"]:
    """The lines of a file: class, centre and size; none of a file that is not there."""
    rows = []
    try:
        lines = path.read_text("utf-8-sig").splitlines() if path.exists() else []
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{path} cannot be read: {error}.")
        lines = []
    for number, line in enumerate(lines, start=1):
        parts = line.split()
        if not parts:
            continue
        wrong = _wrong_count(len(parts))
        try:
            values = [float(part) for part in parts]
        except ValueError:
            values, wrong = [], wrong or "holds what is no number"
        if not wrong:
            wrong = _wrong_values(values, classes)
        if wrong:
            problems.append(f"{path}, line {number} ({line.strip()[:80]!r}) {wrong}.")
        else:
            rows.append(values)
    return np.array(rows, np.float64).reshape(-1, 5)


def _wrong_count(columns: int) -> str:
    if columns == 5:
        return ""
    if columns == 6:
        return "has 6 columns: the last is a confidence, which is of predictions, not of labels"
    if columns >= 7 and columns % 2:
        return f"has {columns} columns: a polygon; expected a box, `class cx cy w h`"
    return f"has {columns} columns; expected 5, `class cx cy w h`"


def _wrong_values(values: Sequence[float], classes: int) -> str:
    number = values[0]
    if not all(abs(value) < 1e9 for value in values):
        return "holds a number that is not finite"
    if number != int(number) or not 0 <= number < classes:
        return f"is of class {number:g}; there are {classes} (0 to {classes - 1})"
    if max(map(abs, values[1:])) > 2:
        return "is in pixels; expected parts of the image's width and height, from 0 to 1"
    return ""
