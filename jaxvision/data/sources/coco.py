"""Boxes, masks, key points and captions in the JSON files of COCO.

Lin et al., Microsoft COCO, 2014, https://arxiv.org/abs/1405.0312.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from ml_collections import ConfigDict

from jaxvision.data.facts import Facts, mirrored_pairs
from jaxvision.data.masks import segmentation_of
from jaxvision.data.sources import boxes, coco_captions, coco_files
from jaxvision.data.sources.coco_files import NO_CATEGORY, few, finite, short
from jaxvision.data.sources.splits import Source, base_splits

__all__ = ["NO_CATEGORY", "coco"]

_EXPECTED = (
    "a COCO file of instances has 'images', 'annotations' and 'categories', one of captions the "
    "former two"
)


def coco(
    data: ConfigDict,
    *,
    annotations: str | Mapping[str, str],
    images: str = "",
    check_sizes: bool = True,
) -> Callable[[str], Source]:
    """images with objects, or captions, in COCO's JSON: data.dir, data.options.annotations

    Of a file of captions records carry `captions`, in the order of their ids. Of others they carry
    `segmentations` where an object of the file has a mask, and `keypoints` where its categories
    name key points. Those are checked when they are decoded; the text in place of a segmentation
    says what is wrong with it.

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
        path = coco_files.find(annotations, split, root)
        content = _read(path)
        folder = root / images.replace("{split}", split)
        names = tuple(data.classes)
        if isinstance(content, coco_captions.Captions):
            skip = data.on_corrupt == "skip"
            return coco_captions.source(content, path, root, folder, skip, names)
        if not names:  # every split of an experiment counts classes as its training split does
            counted = coco_files.candidates(annotations, base_splits(data.train)[0], root)
            training = next(filter(Path.is_file, counted), path)
            names = _read(training).class_names
        labels = _classes(content, names, path)
        files = coco_files.files_of(content.file_names, folder, path)
        boxes.check_images(files, str(path), root, data.on_corrupt == "skip")
        rows = {
            "boxes": content.boxes,
            "box_label": labels[content.category_of],
            "box_crowd": content.crowd,
            "box_area": content.area,
            **content.more,
        }
        if check_sizes and "segmentations" in rows:
            rows["segmentations"] = _of_right_size(content)
        ids = coco_files.category_ids_of(names, content.category_ids, content.class_names)
        return boxes.with_objects(
            f"{path}",
            files,
            names,
            content.image_of,
            rows,
            sizes=content.sizes if check_sizes else None,
            image_ids=content.image_ids,
            facts=Facts(
                category_ids=ids,
                keypoint_names=content.keypoint_names,
                keypoint_pairs=mirrored_pairs(content.keypoint_names),
                skeleton=content.skeleton,
            ),
        )

    return load


@dataclass(frozen=True, eq=False)
class _Content:
    """A JSON file as arrays; n objects, m images.

    `more` has rows of the objects that not every file has: `segmentations`, `keypoints`.
    """

    image_ids: tuple[Any, ...]
    file_names: tuple[Any, ...]
    sizes: Int[np.ndarray, "m 2"]
    category_ids: tuple[int, ...]
    class_names: tuple[str, ...]
    keypoint_names: tuple[str, ...]
    skeleton: tuple[tuple[int, int], ...]
    ids: Sequence[Any]
    image_of: Int[np.ndarray, " n"]
    category_of: Int[np.ndarray, " n"]
    boxes: Float[np.ndarray, "n 4"]
    crowd: Bool[np.ndarray, " n"]
    area: Float[np.ndarray, " n"]
    more: Mapping[str, np.ndarray]


def _read(path: Path) -> _Content | coco_captions.Captions:
    status = path.stat()
    return _parsed(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(4)  # several splits, and parts of one, are of a file; COCO's has 450 MB
def _parsed(path: Path, changed: int, size: int) -> _Content | coco_captions.Captions:
    """The content of a file that was last `changed` so.

    Raises:
      DataError: it is no JSON, or no COCO file of instances or captions.
    """
    content = coco_files.load(path, _EXPECTED, ("images", "annotations"))
    if coco_captions.are_captions(content):
        return coco_captions.parsed(content, path)
    coco_files.check_lists(content, path, _EXPECTED, ("categories",))
    problems: list[str] = []
    categories = content["categories"]
    ids, class_names = coco_files.categories(categories, path, problems)
    points = _points_of_categories(categories, path, problems)
    image_ids, file_names, sizes = coco_files.images(content["images"], path, problems)
    boxes.stop_at(problems)
    objects = _objects(content["annotations"], image_ids, ids, len(points[0]), path)
    return _Content(image_ids, file_names, sizes, ids, class_names, *points, *objects)


def _points_of_categories(
    items: Sequence[Any], path: Path, problems: list[str]
) -> tuple[tuple[str, ...], tuple[tuple[int, int], ...]]:
    """(names of the key points, pairs of them between which the skeleton has a line)."""
    found: dict[tuple[Any, ...], tuple[str, Any]] = {}
    for item in items:
        if isinstance(item, dict) and isinstance(item.get("keypoints"), list):
            lines = item.get("skeleton") or []
            found.setdefault(tuple(map(str, item["keypoints"])), (item.get("name", ""), lines))
    found.pop((), None)
    if len(found) > 1:
        (first, _), (second, _), *_ = found.values()
        problems.append(
            f"{path}: the categories {first!r} and {second!r} have different key points; expected "
            "the same of all categories that have any."
        )
    if len(found) != 1:
        return (), ()
    ((names, (category, lines)),) = found.items()
    skeleton = []
    for line in lines if isinstance(lines, list) else [lines]:
        match line:
            case [int(one), int(other)] if 0 < min(one, other) <= max(one, other) <= len(names):
                skeleton.append((one - 1, other - 1))
            case _:
                problems.append(
                    f"{path}: the skeleton of category {category!r} has {short(line)}; expected "
                    f"two numbers of key points, 1 to {len(names)}."
                )
    return names, tuple(skeleton)


def _objects(
    items: Sequence[Any],
    image_ids: Sequence[Any],
    category_ids: Sequence[int],
    points: int,
    path: Path,
) -> tuple[Any, ...]:
    """What a `_Content` has from `ids` on.

    Args:
      items: the annotations.
      image_ids: of the images.
      category_ids: of the categories.
      points: how many key points an object has.
      path: of the file.

    Raises:
      DataError: one of them is wrong.
    """
    problems: list[str] = []
    image_of = {number: place for place, number in enumerate(image_ids)}
    category_of = {number: place for place, number in enumerate(category_ids)}
    rows, ids, masks, keypoints = [], [], [], []
    keys = ("image_id", "category_id", "bbox")
    for place, item, (image, category, box) in coco_files.fields(
        items, "annotation", keys, path, problems
    ):
        wrong = ""
        if not isinstance(image, (int, str)) or image not in image_of:
            wrong = f"is of image {short(image)}, which is not among 'images'"
        elif type(category) is not int or category not in category_of:
            wrong = f"is of category {short(category)}; there are {few(category_ids)}"
        elif not (isinstance(box, list) and len(box) == 4 and all(map(finite, box))):
            wrong = f"has the bbox {short(box)}; expected [x, y, width, height]"
        elif not finite(area := item.get("area", box[2] * box[3])):
            wrong = f"has the area {short(area)}"
        elif points and not _are_points(given := item.get("keypoints") or [0] * 3 * points, points):
            wrong = (
                f"has the keypoints {short(given)}; expected x, y and 0, 1 or 2 of each of {points}"
            )
        number = item.get("id", place)
        if wrong:
            problems.append(f"{path}: annotation {short(number)} {wrong}.")
            continue
        crowd = bool(item.get("iscrowd", 0))
        rows.append((image_of[image], category_of[category], *box, crowd, area))
        ids.append(number)
        mask = segmentation_of(item.get("segmentation"))
        masks.append(f"annotation {short(number)} {mask}" if isinstance(mask, str) else mask)
        if points:
            keypoints.append(given)
    boxes.stop_at(problems)
    table = np.array(rows, np.float64).reshape(-1, 8)
    corners = np.concatenate([table[:, 2:4], table[:, 2:4] + table[:, 4:6]], axis=1)
    more: dict[str, np.ndarray] = {}
    if any(mask is not None for mask in masks):
        more["segmentations"] = _as_array(masks)
    if points:
        more["keypoints"] = _keypoints(keypoints, points)
    return (
        ids,
        table[:, 0].astype(np.int64),
        table[:, 1].astype(np.int64),
        corners.astype(np.float32),
        table[:, 6] > 0,
        table[:, 7].astype(np.float32),
        more,
    )


def _are_points(given: Any, count: int) -> bool:
    return (
        isinstance(given, list)
        and len(given) == 3 * count
        and all(map(finite, given))
        and set(given[2::3]) <= {0, 1, 2}
    )


def _keypoints(given: Sequence[Sequence[float]], count: int) -> Float[np.ndarray, "n k 3"]:
    """(x, y, labelled) of each key point; COCO's 1 is labelled though hidden, and is used alike.

    COCO numbers pixels from 0, and here the first has its centre at 0.5.
    """
    table = np.array(given, np.float64).reshape(-1, count, 3)
    labelled = table[..., 2:] > 0
    points = np.where(labelled, table[..., :2] + 0.5, 0)
    return np.concatenate([points, labelled], axis=-1).astype(np.float32)


def _as_array(values: Sequence[Any]) -> np.ndarray:
    """One object an entry, whatever they are."""
    array = np.empty(len(values), object)
    for place, value in enumerate(values):
        array[place] = value
    return array


def _of_right_size(content: _Content) -> np.ndarray:
    """The segmentations; in place of run lengths of another size than their image's, a text."""
    masks = content.more["segmentations"].copy()
    for row, mask in enumerate(masks):
        if isinstance(mask, dict):
            size, stated = content.sizes[content.image_of[row]].tolist(), mask["size"]
            if all(size) and size != stated:
                masks[row] = (
                    f"annotation {short(content.ids[row])} has run lengths of "
                    f"{stated[1]}x{stated[0]} pixels, its image has {size[1]}x{size[0]}"
                )
    return masks


def _classes(content: _Content, names: Sequence[str], path: Path) -> Int[np.ndarray, " k"]:
    """The class of each category.

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
    labels = [place.get(name, 0) for name in content.class_names]  # 0 of those without an object
    return np.array(labels, np.int32)
