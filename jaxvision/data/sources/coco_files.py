"""COCO's JSON files, of instances and of panoptic segments: where they are, images, categories.

Lin et al., Microsoft COCO, 2014, https://arxiv.org/abs/1405.0312, and https://cocodataset.org.
"""

import json
import math
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxvision.data.sources import boxes
from jaxvision.data.sources.boxes import DataError
from jaxvision.errors import UserError, unknown
from jaxvision.progress import waiting

NO_CATEGORY = -1  # the id of a class that the file does not name


def candidates(annotations: str | Mapping[str, str], split: str, root: Path) -> list[Path]:
    """Where the JSON file of a split may be; nowhere if a dict has none for it.

    Raises:
      UserError: the option names no files.
    """
    texts = annotations.values() if isinstance(annotations, Mapping) else [annotations]
    if not all(isinstance(text, str) for text in texts):
        raise UserError(
            f"data.options.annotations is {annotations!r}; expected the name of a JSON file, in "
            "which {split} stands for the split, or a dict with one for each split."
        )
    if isinstance(annotations, Mapping):
        names = [annotations[split]] if split in annotations else []
    else:
        names = [annotations.replace("{split}", split)]
    return [base / Path(name).expanduser() for name in names for base in (root, Path.cwd())]


def find(annotations: str | Mapping[str, str], split: str, root: Path) -> Path:
    """The JSON file of a split.

    Raises:
      UserError: there is none.
    """
    places = candidates(annotations, split, root)
    for path in places:
        if path.is_file():
            return path
    if not places:
        raise unknown("split of data.options.annotations:", split, annotations)
    near = sorted(path.name for path in places[0].parent.glob("*.json"))
    hint = f" There are: {', '.join(near[:10])}." if near else ""
    raise UserError(
        f"No such file of annotations: {' or '.join(map(str, dict.fromkeys(places)))}; it is named "
        f"by data.options.annotations, in which {{split}} stands for {split!r}.{hint}"
    )


def load(
    path: Path, expected: str, lists: Sequence[str] = ("images", "annotations", "categories")
) -> dict[str, Any]:
    """The content of a file.

    Args:
      path: of the file.
      expected: says what it should be.
      lists: that it must have.

    Raises:
      DataError: it is no JSON, or lacks the lists of a COCO file.
    """
    try:
        with waiting(f"Reading {path.name}"):
            content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError([f"{path} is no valid JSON: {error}."]) from error
    if not isinstance(content, dict):
        raise DataError([f"{path} holds a {type(content).__name__}; {expected}."])
    check_lists(content, path, expected, lists)
    return content


def check_lists(
    content: Mapping[str, Any], path: Path, expected: str, lists: Sequence[str]
) -> None:
    """Looks whether a file has lists of these names; see `load`.

    Raises:
      DataError: it has not.
    """
    for key in lists:
        if not isinstance(content.get(key), list):
            have = ", ".join(map(repr, list(content)[:10]))
            raise DataError([f"{path} has no list {key!r}, but {have}; {expected}."])


def fields(
    items: Sequence[Any], what: str, keys: Sequence[str], path: Path, problems: list[str]
) -> Iterator[tuple[int, dict[str, Any], list[Any]]]:
    """(place, item, values) of the items that have all the keys; the others are problems."""
    for place, item in enumerate(items):
        try:
            yield place, item, [item[key] for key in keys]
        except (KeyError, TypeError):
            if isinstance(item, dict):
                key = next(key for key in keys if key not in item)
                problems.append(f"{path}: {what} {place} has no {key!r}: {short(item)}.")
            else:
                problems.append(f"{path}: {what} {place} is no table: {short(item)}.")


def categories(
    items: Sequence[Any], path: Path, problems: list[str]
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """(ids, names) in the order of the ids, which may have gaps."""
    found: dict[int, str] = {}
    for place, _, (number, name) in fields(items, "category", ("id", "name"), path, problems):
        if type(number) is not int or not isinstance(name, str):
            problems.append(
                f"{path}: category {place} has id {short(number)} and name {short(name)}."
            )
        elif number in found or name in found.values():
            problems.append(f"{path} has two categories of id {number} or name {name!r}.")
        else:
            found[number] = name
    if not items:
        problems.append(f"{path} has no category: its 'categories' is empty.")
    ids = tuple(sorted(found))
    return ids, tuple(found[number] for number in ids)


def images(
    items: Sequence[Any], path: Path, problems: list[str]
) -> tuple[tuple[Any, ...], tuple[Any, ...], Int[np.ndarray, "m 2"]]:
    """(ids, file names, sizes) of the images."""
    ids: dict[Any, None] = {}
    names: dict[Any, Any] = {}
    sizes = []
    for place, item, (number, name) in fields(items, "image", ("id", "file_name"), path, problems):
        size = item.get("height") or 0, item.get("width") or 0
        if not isinstance(number, (int, str)) or not isinstance(name, str):
            problems.append(
                f"{path}: image {place} has id {short(number)} and file_name {short(name)}."
            )
        elif number in ids:
            problems.append(f"{path} has two images of id {number!r}.")
        elif name in names:
            problems.append(f"{path} has image {name!r} twice, ids {names[name]!r} and {number!r}.")
        elif not all(isinstance(side, int) and 0 <= side < 2**31 for side in size):
            problems.append(
                f"{path}: image {name!r} has width {short(size[1])} and height {short(size[0])}."
            )
        else:
            ids[number], names[name] = None, number
            sizes.append(size)
    if not items:
        problems.append(f"{path} has no image: its 'images' is empty.")
    return tuple(ids), tuple(names), np.array(sizes, np.int32).reshape(-1, 2)


def files_of(names: Sequence[Any], folder: Path, path: Path) -> list[Path]:
    """The files of images of these names; `path` lists them.

    Raises:
      DataError: a name leads out of the folder.
    """
    files = [boxes.inside(folder, name) for name in names]
    boxes.stop_at([
        f"{path} names the image {name!r}; expected one below {folder}."
        for name, file in zip(names, files)
        if file is None
    ])  # fmt: skip
    return [file for file in files if file is not None]


def category_ids_of(
    names: Sequence[str], ids: Sequence[int], of_file: Sequence[str]
) -> tuple[int, ...]:
    """The id of each class, by those of the file's categories; `NO_CATEGORY` where it has none."""
    known = dict(zip(of_file, ids, strict=True))
    return tuple(known.get(name, NO_CATEGORY) for name in names)


def finite(value: Any) -> bool:
    """Whether it is a number that can be one of pixels."""
    return isinstance(value, (int, float)) and abs(value) < 1e9 and not math.isnan(value)


def short(value: Any) -> str:
    """A value for a message; a file may hold any."""
    return reprlib.repr(value)


def few(values: Sequence[Any]) -> str:
    """The first of some values, for a message."""
    return ", ".join(map(str, values[:20])) + (", ..." if len(values) > 20 else "")
