"""Street scenes of Cityscapes with their objects: Cordts et al., 2016.

The Cityscapes Dataset for Semantic Urban Scene Understanding, https://arxiv.org/abs/1604.01685. A
pixel of `*_gtFine_instanceIds.png` is 1000 times the class and the object's number; of what is not
told apart, stuff or a group of things, it is the class alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped
from ml_collections import ConfigDict

from jaxvision.data.codecs import decode_mask
from jaxvision.data.facts import Facts
from jaxvision.data.label_maps import IGNORE
from jaxvision.data.sources import boxes
from jaxvision.data.sources.files import read_file
from jaxvision.data.sources.splits import Source
from jaxvision.data.sources.walk import images_below
from jaxvision.errors import UserError, unknown

STUFF = {
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
}
THINGS = {
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
_OF_CLASS = 1000  # objects at most


def cityscapes(
    data: ConfigDict,
    *,
    images: str = "leftImg8bit/{split}",
    masks: str = "gtFine/{split}",
    stuff: bool = False,
) -> Callable[[str], Source]:
    """street scenes of Cityscapes with objects: data.dir has leftImg8bit and gtFine

    Records have boxes, classes and masks of things, groups of them as crowds, and with `stuff` also
    `segmentation`, the class of each pixel.

    Args:
      data: the group of a configuration; `data.classes` may choose some of the classes.
      images: folder below `data.dir` with the images, in a folder for each town; `{split}` stands
        for the split.
      masks: that of the files `*_instanceIds.png`, alike.
      stuff: whether stuff has classes too; they come before those of things.

    Raises:
      UserError: a folder or mask is missing, or a class is none of the data set.
    """
    root = Path(data.dir).expanduser()
    ids = {**(STUFF if stuff else {}), **THINGS}
    names = tuple(data.classes) or tuple(ids)
    for name in names:
        if name not in ids:
            raise unknown("class of Cityscapes", name, ids)

    def load(split: str) -> Source:
        folder = root / images.replace("{split}", split)
        if not folder.is_dir():
            raise UserError(f"There is no folder {folder}; data.dir has leftImg8bit and gtFine.")
        photos = images_below(folder)
        if not photos:
            raise UserError(f"There is no image in {folder}.")
        labels = root / masks.replace("{split}", split)
        found = [labels / _mask_of(photo.relative_to(folder)) for photo in photos]
        if missing := boxes.absent(found):
            raise UserError(
                f"{len(missing)} of {len(found)} masks of {folder} are missing, first {missing[0]}."
            )
        things = tuple(index for index, name in enumerate(names) if name in THINGS)
        facts = Facts(things=things if stuff else ())
        return Scenes(
            tuple(photos), tuple(found), names, tuple(ids[n] for n in names), stuff, facts
        )

    return load


def _mask_of(photo: Path) -> Path:
    stem = photo.stem.removesuffix("_leftImg8bit")
    return photo.with_name(f"{stem}_gtFine_instanceIds.png")


@dataclass(frozen=True, eq=False)
class Scenes:
    """Image files, and the files of their objects.

    Attributes:
      images, masks: files.
      class_names: in order.
      ids: of these in the files.
      stuff: whether records say the class of each pixel.
      facts: what the data set says of itself.
      faults: none.
    """

    images: tuple[Path, ...]
    masks: tuple[Path, ...]
    class_names: tuple[str, ...]
    ids: tuple[int, ...]
    stuff: bool
    facts: Facts
    faults: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        numbers = decode_mask(read_file(self.masks[index]), str(self.masks[index]))
        record = {"image": read_file(self.images[index]), **self._objects(numbers)}
        if self.stuff:
            classes = np.where(numbers < _OF_CLASS, numbers, numbers // _OF_CLASS)
            table = np.full(max(*self.ids, int(classes.max(initial=0))) + 1, IGNORE, np.uint8)
            table[list(self.ids)] = np.arange(len(self.ids))
            record["segmentation"] = table[classes]
        return record

    def _objects(self, numbers: Shaped[np.ndarray, "h w"]) -> dict[str, Any]:
        label_of = {
            number: place
            for place, (name, number) in enumerate(zip(self.class_names, self.ids))
            if name in THINGS
        }
        values, inverse = np.unique(numbers, return_inverse=True)
        classes = np.where(values < _OF_CLASS, values, values // _OF_CLASS)
        chosen = np.isin(classes, list(label_of))
        place = np.where(chosen, np.cumsum(chosen), 0)
        index = place.astype(np.int32)[inverse.reshape(numbers.shape)]
        return {
            "boxes": _boxes(index, int(chosen.sum())),
            "box_label": np.array([label_of[c] for c in classes[chosen].tolist()], np.int32),
            "box_crowd": values[chosen] < _OF_CLASS,
            "instances": index,
        }

    def name(self, index: int) -> str:
        return str(self.images[index])

    def image_file(self, index: int) -> Path:
        return self.images[index]

    def image_id(self, index: int) -> Any:
        return self.images[index].stem.removesuffix("_leftImg8bit")


def _boxes(index: np.ndarray, count: int) -> np.ndarray:
    """Around the pixels of each number from 1 on."""
    rows, columns = np.nonzero(index)
    number = index[rows, columns] - 1
    boxes = np.full((count, 4), np.inf)
    np.minimum.at(boxes[:, 0], number, columns)
    np.minimum.at(boxes[:, 1], number, rows)
    boxes[:, 2:] = -np.inf
    np.maximum.at(boxes[:, 2], number, columns + 1)
    np.maximum.at(boxes[:, 3], number, rows + 1)
    return boxes.astype(np.float32)
