"""Boxes in the JSON files of COCO: Lin et al., 2014, https://arxiv.org/abs/1405.0312."""

import functools
import json
import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from ml_collections import ConfigDict

from jaxvision.data.facts import Facts
from jaxvision.data.sources import boxes
from jaxvision.data.sources.boxes import DataError
from jaxvision.data.sources.splits import Source, base_splits
from jaxvision.errors import UserError, unknown
from jaxvision.progress import waiting

_EXPECTED = "a COCO file of instances has 'images', 'annotations' and 'categories'"
NO_CATEGORY = -1  # the id of a class that the file does not name


def coco(
    data: ConfigDict,
    *,
    annotations: str | Mapping[str, str],
    images: str = "",
    check_sizes: bool = True,
) -> Callable[[str], Source]:
    """images with boxes in COCO's JSON: data.dir has images, data.options.annotations the JSON

    Args:
      data: the group of a configuration.
      annotations: the file; `{split}` stands for the split, or a dict has one for each. A file that
        is not below `data.dir` is looked for from the current folder. One without `{split}` serves
        any split.
      images: folder below `data.dir` with the images, alike.
      check_sizes: whether images must have the size that the file says.

    Raises:
      UserError: see `DataError`; or there is no such file.
    """
    root = Path(data.dir).expanduser()

    def load(split: str) -> Source:
        path = _file(annotations, split, root)
        content = _read(path)
        names = tuple(data.classes)
        if not names:  # every split of an experiment counts classes as its training split does
            counted = _candidates(annotations, base_splits(data.train)[0], root)
            training = next(filter(Path.is_file, counted), path)
            names = _read(training).class_names
        labels, category_ids = _classes(content, names, path)
        folder = root / images.replace("{split}", split)
        files = _images(content, folder, path)
        boxes.check_images(files, str(path), root, data.on_corrupt == "skip")
        return boxes.with_objects(
            f"{path}",
            files,
            names,
            content.image_of,
            {
                "boxes": content.boxes,
                "box_label": labels[content.category_of],
                "box_crowd": content.crowd,
                "box_area": content.area,
            },
            sizes=content.sizes if check_sizes else None,
            image_ids=content.image_ids,
            facts=Facts(category_ids=category_ids),
        )

    return load


@dataclass(frozen=True, eq=False)
class _Content:
    """A JSON file as arrays; n objects, m images."""

    image_ids: tuple[Any, ...]
    file_names: tuple[Any, ...]
    sizes: Int[np.ndarray, "m 2"]
    category_ids: tuple[int, ...]
    class_names: tuple[str, ...]
    image_of: Int[np.ndarray, " n"]
    category_of: Int[np.ndarray, " n"]
    boxes: Float[np.ndarray, "n 4"]
    crowd: Bool[np.ndarray, " n"]
    area: Float[np.ndarray, " n"]


def _candidates(annotations: str | Mapping[str, str], split: str, root: Path) -> list[Path]:
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


def _file(annotations: str | Mapping[str, str], split: str, root: Path) -> Path:
    """The JSON file of a split.

    Raises:
      UserError: there is none.
    """
    places = _candidates(annotations, split, root)
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


def _read(path: Path) -> _Content:
    status = path.stat()
    return _parsed(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(4)  # several splits, and parts of one, are of a file; COCO's has 450 MB
def _parsed(path: Path, changed: int, size: int) -> _Content:
    """The content of a file that was last `changed` so.

    Raises:
      DataError: it is no JSON, or no COCO file of instances.
    """
    try:
        with waiting(f"Reading {path.name}"):
            content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError([f"{path} is no valid JSON: {error}."]) from error
    if not isinstance(content, dict):
        raise DataError([f"{path} holds a {type(content).__name__}; {_EXPECTED}."])
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            have = ", ".join(map(repr, list(content)[:10]))
            raise DataError([f"{path} has no list {key!r}, but {have}; {_EXPECTED}."])
    problems: list[str] = []
    ids, class_names = _categories(content["categories"], path, problems)
    image_ids, file_names, sizes = _listed(content["images"], path, problems)
    boxes.stop_at(problems)
    objects = _objects(content["annotations"], image_ids, ids, path)
    return _Content(image_ids, file_names, sizes, ids, class_names, *objects)


def _fields(items: Sequence[Any], what: str, keys: Sequence[str], path: Path, problems: list[str]):
    """(place, values) of the items that have all the keys; the others are problems."""
    for place, item in enumerate(items):
        try:
            yield place, item, [item[key] for key in keys]
        except (KeyError, TypeError):
            if isinstance(item, dict):
                key = next(key for key in keys if key not in item)
                problems.append(f"{path}: {what} {place} has no {key!r}: {_short(item)}.")
            else:
                problems.append(f"{path}: {what} {place} is no table: {_short(item)}.")


def _categories(
    items: Sequence[Any], path: Path, problems: list[str]
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """(ids, names) in the order of the ids, which may have gaps."""
    found: dict[int, str] = {}
    for place, _, (number, name) in _fields(items, "category", ("id", "name"), path, problems):
        if type(number) is not int or not isinstance(name, str):
            problems.append(
                f"{path}: category {place} has id {_short(number)} and name {_short(name)}."
            )
        elif number in found or name in found.values():
            problems.append(f"{path} has two categories of id {number} or name {name!r}.")
        else:
            found[number] = name
    if not items:
        problems.append(f"{path} has no category: its 'categories' is empty.")
    ids = tuple(sorted(found))
    return ids, tuple(found[number] for number in ids)


def _listed(
    items: Sequence[Any], path: Path, problems: list[str]
) -> tuple[tuple[Any, ...], tuple[Any, ...], Int[np.ndarray, "m 2"]]:
    """(ids, file names, sizes) of the images."""
    ids: dict[Any, None] = {}
    names: dict[Any, Any] = {}
    sizes = []
    for place, item, (number, name) in _fields(items, "image", ("id", "file_name"), path, problems):
        size = item.get("height") or 0, item.get("width") or 0
        if not isinstance(number, (int, str)) or not isinstance(name, str):
            problems.append(
                f"{path}: image {place} has id {_short(number)} and file_name {_short(name)}."
            )
        elif number in ids:
            problems.append(f"{path} has two images of id {number!r}.")
        elif name in names:
            problems.append(f"{path} has image {name!r} twice, ids {names[name]!r} and {number!r}.")
        elif not all(isinstance(side, int) and 0 <= side < 2**31 for side in size):
            problems.append(
                f"{path}: image {name!r} has width {_short(size[1])} and height {_short(size[0])}."
            )
        else:
            ids[number], names[name] = None, number
            sizes.append(size)
    if not items:
        problems.append(f"{path} has no image: its 'images' is empty.")
    return tuple(ids), tuple(names), np.array(sizes, np.int32).reshape(-1, 2)


def _objects(
    items: Sequence[Any], image_ids: Sequence[Any], category_ids: Sequence[int], path: Path
) -> tuple[np.ndarray, ...]:
    """(image_of, category_of, boxes, crowd, area) of the annotations.

    Raises:
      DataError: one of them is wrong.
    """
    problems: list[str] = []
    image_of = {number: place for place, number in enumerate(image_ids)}
    category_of = {number: place for place, number in enumerate(category_ids)}
    rows = []
    keys = ("image_id", "category_id", "bbox")
    for place, item, (image, category, box) in _fields(items, "annotation", keys, path, problems):
        wrong = ""
        if not isinstance(image, (int, str)) or image not in image_of:
            wrong = f"is of image {_short(image)}, which is not among 'images'"
        elif type(category) is not int or category not in category_of:
            wrong = f"is of category {_short(category)}; there are {_few(category_ids)}"
        elif not (isinstance(box, list) and len(box) == 4 and all(map(_finite, box))):
            wrong = f"has the bbox {_short(box)}; expected [x, y, width, height]"
        elif not _finite(area := item.get("area", box[2] * box[3])):
            wrong = f"has the area {_short(area)}"
        if wrong:
            problems.append(f"{path}: annotation {_short(item.get('id', place))} {wrong}.")
        else:
            crowd = bool(item.get("iscrowd", 0))
            rows.append((image_of[image], category_of[category], *box, crowd, area))
    boxes.stop_at(problems)
    table = np.array(rows, np.float64).reshape(-1, 8)
    corners = np.concatenate([table[:, 2:4], table[:, 2:4] + table[:, 4:6]], axis=1)
    return (
        table[:, 0].astype(np.int64),
        table[:, 1].astype(np.int64),
        corners.astype(np.float32),
        table[:, 6] > 0,
        table[:, 7].astype(np.float32),
    )


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and abs(value) < 1e9 and not math.isnan(value)


def _short(value: Any) -> str:
    """A value for a message; a file may hold any."""
    return reprlib.repr(value)


def _few(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values[:20])) + (", ..." if len(values) > 20 else "")


def _classes(
    content: _Content, names: Sequence[str], path: Path
) -> tuple[Int[np.ndarray, " k"], tuple[int, ...]]:
    """(class of each category, category id of each class).

    A class that the file does not name has the id `NO_CATEGORY`.

    Raises:
      DataError: an object is of a category that is no class.
    """
    used = [content.class_names[place] for place in content.category_of]
    where = [content.file_names[place] for place in content.image_of]
    remedy = " data.classes names the categories that are classes."
    boxes.stop_at(
        [f"{path}: {one}" for one in boxes.unknown_classes(zip(used, where), names, remedy)]
    )
    place = {name: index for index, name in enumerate(names)}
    ids = dict(zip(content.class_names, content.category_ids))
    labels = [place.get(name, 0) for name in content.class_names]  # 0 of those without an object
    return np.array(labels, np.int32), tuple(ids.get(name, NO_CATEGORY) for name in names)


def _images(content: _Content, folder: Path, path: Path) -> list[Path]:
    """The files of the images.

    Raises:
      DataError: a name leads out of the folder.
    """
    files = [boxes.inside(folder, name) for name in content.file_names]
    boxes.stop_at([
        f"{path} names the image {name!r}; expected one below {folder}."
        for name, file in zip(content.file_names, files)
        if file is None
    ])  # fmt: skip
    return [file for file in files if file is not None]
