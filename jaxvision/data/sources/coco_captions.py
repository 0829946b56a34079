"""Captions in the JSON files of COCO.

Chen et al., Microsoft COCO Captions, 2015, https://arxiv.org/abs/1504.00325.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxvision.data.sources import boxes, coco_files
from jaxvision.data.sources.captions import CaptionFiles
from jaxvision.data.sources.coco_files import short


@dataclass(frozen=True, eq=False)
class Captions:
    """A JSON file.

    Attributes:
      image_ids: of the images.
      file_names: theirs.
      texts: the captions of each, in the order of their ids.
    """

    image_ids: tuple[Any, ...]
    file_names: tuple[Any, ...]
    texts: tuple[tuple[str, ...], ...]
    class_names: tuple[str, ...] = ()


def are_captions(content: Mapping[str, Any]) -> bool:
    """Whether the annotations of a file are captions, by the first."""
    first = next(iter(content["annotations"]), None)
    return isinstance(first, dict) and "caption" in first


def parsed(content: Mapping[str, Any], path: Path) -> Captions:
    """The content of a file of captions.

    Raises:
      DataError: an image or a caption is wrong.
    """
    problems: list[str] = []
    image_ids, names, _ = coco_files.images(content["images"], path, problems)
    place = {number: index for index, number in enumerate(image_ids)}
    found: list[list[tuple[int, str]]] = [[] for _ in image_ids]
    keys = ("image_id", "caption")
    for index, item, (image, text) in coco_files.fields(
        content["annotations"], "annotation", keys, path, problems
    ):
        number = item.get("id", index)
        if not isinstance(image, (int, str)) or image not in place:
            wrong = f"is of image {short(image)}, which is not among 'images'"
        elif not isinstance(text, str):
            wrong = f"has the caption {short(text)}; expected text"
        elif type(number) is not int:
            wrong = "has an id that is no number"
        else:
            found[place[image]].append((number, text))
            continue
        problems.append(f"{path}: annotation {short(number)} {wrong}.")
    boxes.stop_at(problems)
    texts = tuple(tuple(text for _, text in sorted(several)) for several in found)
    return Captions(image_ids, names, texts)


def source(
    content: Captions, path: Path, root: Path, folder: Path, skip: bool, names: tuple[str, ...]
) -> CaptionFiles:
    """The records of a file.

    Args:
      content: of the file.
      path: of the file.
      root: the folder of the data.
      folder: with the images.
      skip: see `boxes.check_images`.
      names: of classes, of the configuration.

    Raises:
      DataError: images are missing.
    """
    files = coco_files.files_of(content.file_names, folder, path)
    boxes.check_images(files, str(path), root, skip)
    return CaptionFiles(tuple(files), content.texts, names, content.image_ids)
