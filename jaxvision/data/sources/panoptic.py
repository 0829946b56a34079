"""Objects and classes of all pixels, in COCO's files of panoptic segmentation.

Kirillov et al., Panoptic Segmentation, 2019, https://arxiv.org/abs/1801.00868: things have objects
that are told apart, stuff has one segment of an image and class.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from ml_collections import ConfigDict

from jaxvision.data.facts import Facts
from jaxvision.data.label_maps import ignored, label_type
from jaxvision.data.segment_maps import SegmentImage, SegmentMap
from jaxvision.data.sources import boxes, coco_files
from jaxvision.data.sources.boxes import BoxFiles
from jaxvision.data.sources.coco_files import few, finite, short
from jaxvision.data.sources.files import read_file
from jaxvision.data.sources.splits import Source, base_splits

_EXPECTED = "a COCO file of panoptic segments has 'images', 'annotations' and 'categories'"


def panoptic(
    data: ConfigDict,
    *,
    annotations: str | Mapping[str, str],
    images: str = "",
    masks: str = "",
    stuff: bool = True,
    check_sizes: bool = True,
) -> Callable[[str], Source]:
    """images with things and stuff in COCO's JSON and PNGs: data.dir, data.options.annotations

    Records have boxes, classes and masks of things, and `segmentation`, the class of each pixel.

    Args:
      data: the group of a configuration.
      annotations: the JSON file, as for `coco`.
      images: folder below `data.dir` with the images; `{split}` stands for the split.
      masks: folder with the PNGs, alike; by default the one beside the JSON file that is called as
        it is.
      stuff: whether stuff has classes; else its pixels are of no class.
      check_sizes: whether images must have the size that the file says.

    Raises:
      UserError: see `DataError`; or there is no such file.
    """
    root = Path(data.dir).expanduser()

    def load(split: str) -> Source:
        path = coco_files.find(annotations, split, root)
        content = _read(path)
        names = tuple(data.classes)
        if not names:  # every split of an experiment counts classes as its training split does
            counted = coco_files.candidates(annotations, base_splits(data.train)[0], root)
            training = _read(next(filter(Path.is_file, counted), path))
            shown = training.is_thing | stuff
            names = tuple(name for name, one in zip(training.class_names, shown) if one)
        folder = root / masks.replace("{split}", split) if masks else path.with_suffix("")
        photos = coco_files.files_of(
            content.file_names, root / images.replace("{split}", split), path
        )
        pngs = coco_files.files_of(content.mask_names, folder, path)
        boxes.check_images(photos, str(path), root, data.on_corrupt == "skip")
        _check_masks(pngs, path, root)
        return _source(content, path, photos, pngs, names, stuff, check_sizes)

    return load


@dataclass(frozen=True, eq=False)
class PanopticFiles:
    """Image files with the objects of each, and image files of its segments.

    Attributes:
      objects: images and things; `segment` is the number of each.
      masks: the PNGs.
      starts: the segments of image i are `starts[i]` to `starts[i + 1]`.
      segments: their numbers.
      classes: theirs; the value of no class where there is none.
    """

    objects: BoxFiles
    masks: tuple[Path, ...]
    starts: Int[np.ndarray, " m1"]
    segments: Int[np.ndarray, " n"]
    classes: np.ndarray

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.objects.class_names

    @property
    def facts(self) -> Facts:
        return self.objects.facts

    @property
    def faults(self) -> Mapping[str, tuple[str, ...]]:
        return self.objects.faults

    def __len__(self) -> int:
        return len(self.objects)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self.objects[index]
        part = slice(self.starts[index], self.starts[index + 1])
        numbers, classes = self.segments[part], self.classes[part]
        image = SegmentImage(read_file(self.masks[index]), numbers)
        things = record.pop("segment")
        place = np.zeros(len(numbers) + 1, np.int32)  # of each segment among the things, from 1
        place[1:][np.searchsorted(numbers, things)] = np.arange(1, len(things) + 1)
        nothing = np.array([ignored(classes.dtype)], classes.dtype)
        record["instances"] = SegmentMap(image, place)
        record["segmentation"] = SegmentMap(image, np.concatenate([nothing, classes]))
        return record

    def name(self, index: int) -> str:
        return self.objects.name(index)

    def image_id(self, index: int) -> Any:
        return self.objects.image_id(index)

    def image_file(self, index: int) -> Path:
        return self.objects.image_file(index)


@dataclass(frozen=True, eq=False)
class _Content:
    """A JSON file as arrays; n segments by image and number, m images, k categories."""

    image_ids: tuple[Any, ...]
    file_names: tuple[Any, ...]
    sizes: Int[np.ndarray, "m 2"]
    mask_names: tuple[Any, ...]
    category_ids: tuple[int, ...]
    class_names: tuple[str, ...]
    is_thing: Bool[np.ndarray, " k"]
    image_of: Int[np.ndarray, " n"]
    numbers: Int[np.ndarray, " n"]
    category_of: Int[np.ndarray, " n"]
    boxes: Float[np.ndarray, "n 4"]
    crowd: Bool[np.ndarray, " n"]
    area: Float[np.ndarray, " n"]


def _read(path: Path) -> _Content:
    status = path.stat()
    return _parsed(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(4)
def _parsed(path: Path, changed: int, size: int) -> _Content:
    """The content of a file that was last `changed` so.

    Raises:
      DataError: it is no JSON, or no COCO file of panoptic segments.
    """
    content = coco_files.load(path, _EXPECTED)
    problems: list[str] = []
    ids, class_names = coco_files.categories(content["categories"], path, problems)
    things = {one.get("id") for one in content["categories"] if one.get("isthing")}
    is_thing = np.array([number in things for number in ids], bool)
    image_ids, file_names, sizes = coco_files.images(content["images"], path, problems)
    place_of = {number: place for place, number in enumerate(image_ids)}
    category_of = dict(zip(ids, range(len(ids))))
    masks: dict[int, str] = {}
    rows: list[tuple[Any, ...]] = []
    keys = ("image_id", "file_name", "segments_info")
    for place, _, (image, name, segments) in coco_files.fields(
        content["annotations"], "annotation", keys, path, problems
    ):
        what = f"{path}: annotation {place}"
        if not isinstance(image, (int, str)) or image not in place_of:
            problems.append(f"{what} is of image {short(image)}, which is not among 'images'.")
        elif place_of[image] in masks:
            problems.append(f"{what} is the second of image {image!r}.")
        elif not isinstance(name, str) or not isinstance(segments, list):
            problems.append(
                f"{what} has file_name {short(name)} and segments_info {short(segments)}."
            )
        else:
            masks[place_of[image]] = name
            found = _segments(segments, category_of, is_thing, f"{what} ({image!r})", problems)
            rows += [(place_of[image], *one) for one in found]
    boxes.stop_at(problems)
    if bare := [file_names[place] for place in range(len(image_ids)) if place not in masks]:
        problems.append(f"{path}: {len(bare)} images have no annotation, first {bare[0]!r}.")
    boxes.stop_at(problems)
    table = np.array(sorted(rows), np.float64).reshape(-1, 9)
    image_of, numbers, categories = table[:, :3].astype(np.int64).T
    corners = np.concatenate([table[:, 3:5], table[:, 3:5] + table[:, 5:7]], axis=1)
    return _Content(
        image_ids, file_names, sizes,
        tuple(masks[place] for place in range(len(image_ids))),
        ids, class_names, is_thing, image_of, numbers, categories,
        corners.astype(np.float32), table[:, 7] > 0, table[:, 8].astype(np.float32),
    )  # fmt: skip


def _segments(
    items: Sequence[Any],
    category_of: Mapping[int, int],
    is_thing: Bool[np.ndarray, " k"],
    what: str,
    problems: list[str],
) -> list[tuple[Any, ...]]:
    """(number, category, x, y, width, height, crowd, area) of an image's segments."""
    found: dict[int, tuple[Any, ...]] = {}
    for item in items:
        number, category = (
            (item.get("id"), item.get("category_id")) if isinstance(item, dict) else (None, None)
        )
        if type(number) is not int or not 0 < number < 1 << 24 or number in found:
            problems.append(
                f"{what} has the segment {short(item)}; expected an 'id' of its own, from 1 to "
                f"{(1 << 24) - 1}."
            )
        elif type(category) is not int or category not in category_of:
            problems.append(
                f"{what}: segment {number} is of category {short(category)}; there are "
                f"{few(list(category_of))}."
            )
        else:
            place = category_of[category]
            box = item.get("bbox") if is_thing[place] else [0, 0, 0, 0]
            if not (isinstance(box, list) and len(box) == 4 and all(map(finite, box))):
                problems.append(
                    f"{what}: segment {number} has the bbox {short(box)}; expected "
                    "[x, y, width, height]."
                )
                continue
            area = item.get("area", box[2] * box[3])
            if not finite(area):
                problems.append(f"{what}: segment {number} has the area {short(area)}.")
                continue
            crowd = bool(item.get("iscrowd", 0))
            found[number] = (number, place, *box, crowd, area)
    return list(found.values())


def _check_masks(pngs: Sequence[Path], path: Path, root: Path) -> None:
    """Raises:
    DataError: PNGs are missing; it says where the first is, if it is near.
    """
    if missing := boxes.absent(pngs):
        boxes.stop_at([
            f"{len(missing)} of {len(pngs)} masks of {path} are missing, first {missing[0]}. "
            + boxes.elsewhere(missing, root, "masks")
        ])  # fmt: skip


def _source(
    content: _Content,
    path: Path,
    photos: Sequence[Path],
    pngs: Sequence[Path],
    names: tuple[str, ...],
    stuff: bool,
    check_sizes: bool,
) -> PanopticFiles:
    """Raises:
    DataError: a segment is of a category that is no class.
    """
    thing = content.is_thing[content.category_of]
    used = [content.class_names[place] for place in content.category_of[thing | stuff]]
    where = [content.file_names[place] for place in content.image_of[thing | stuff]]
    remedy = " data.classes names the categories that are classes."
    boxes.stop_at(
        [f"{path}: {one}" for one in boxes.unknown_classes(zip(used, where), names, remedy)]
    )
    kind = label_type(len(names))
    number_of = {name: index for index, name in enumerate(names)}
    class_of = np.array([number_of.get(name, ignored(kind)) for name in content.class_names], kind)
    ids = coco_files.category_ids_of(names, content.category_ids, content.class_names)
    things = {name for name, one in zip(content.class_names, content.is_thing) if one}
    classes = class_of[content.category_of]
    objects = boxes.with_objects(
        f"{path}",
        photos,
        names,
        content.image_of[thing],
        {
            "boxes": content.boxes[thing],
            "box_label": classes[thing].astype(np.int32),
            "box_crowd": content.crowd[thing],
            "box_area": content.area[thing],
            "segment": content.numbers[thing],
        },
        sizes=content.sizes if check_sizes else None,
        image_ids=content.image_ids,
        facts=Facts(
            category_ids=ids,
            things=tuple(place for name, place in number_of.items() if name in things),
        ),
    )
    counts = np.bincount(content.image_of, minlength=len(photos))
    starts = np.concatenate([[0], np.cumsum(counts)])
    return PanopticFiles(objects, tuple(pngs), starts, content.numbers, classes)
