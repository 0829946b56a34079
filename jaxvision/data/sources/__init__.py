"""Where records come from: TFDS, folders, tables, masks, boxes, captions, idx files.

A source is random access over encoded records: `len(source)`, `source[i]` is a dict with `image`
(encoded bytes, or a uint8 array where the format stores arrays) and its annotations,
`source.name(i)` names record i in messages. Nothing is decoded here; see `jaxvision.data.codecs`.

A registered source is a function `(data, *, option=default, ...)` of the `data` group of a
configuration and of `data.options`; it gives a function from the name of a whole split to its
`Source`. Users add theirs by `@sources.register("mine")` and choose it by `data.source="mine"`.
"""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from jaxvision.data import options
from jaxvision.data.sources.boxes import BoxFiles, DataError
from jaxvision.data.sources.captions import CaptionFiles, captions
from jaxvision.data.sources.cityscapes import cityscapes
from jaxvision.data.sources.coco import coco
from jaxvision.data.sources.files import (
    Files,
    folder,
    image_folder,
    images,
    mask_folder,
    masks,
    read_file,
)
from jaxvision.data.sources.idx import Arrays, idx, idx_files, read_idx
from jaxvision.data.sources.lsp import lsp
from jaxvision.data.sources.panoptic import panoptic
from jaxvision.data.sources.splits import Selection, Source, base_splits, cut, image_file, image_id
from jaxvision.data.sources.table import table
from jaxvision.data.sources.tfds import Tfds, tfds, tfds_builder
from jaxvision.data.sources.voc import voc
from jaxvision.data.sources.walk import IMAGE_SUFFIXES, VOLUME_SUFFIX, images_below
from jaxvision.data.sources.yolo import yolo
from jaxvision.registry import Registry

SOURCES: Registry[Callable[..., Callable[[str], Source]]] = Registry(
    "data source",
    {
        "tfds": tfds,
        "folder": folder,
        "csv": table,
        "images": images,
        "masks": masks,
        "captions": captions,
        "coco": coco,
        "panoptic": panoptic,
        "cityscapes": cityscapes,
        "voc": voc,
        "yolo": yolo,
        "idx": idx,
        "lsp": lsp,
    },
)
register = SOURCES.register

__all__ = [
    "IMAGE_SUFFIXES",
    "SOURCES",
    "VOLUME_SUFFIX",
    "Arrays",
    "BoxFiles",
    "CaptionFiles",
    "DataError",
    "Files",
    "Selection",
    "Source",
    "Tfds",
    "base_splits",
    "cut",
    "describe",
    "idx_files",
    "image_file",
    "image_folder",
    "image_id",
    "images_below",
    "mask_folder",
    "open_split",
    "read_file",
    "read_idx",
    "register",
    "tfds_builder",
]


def open_split(data: ConfigDict, spec: str) -> Source:
    """The records of one split of the configured data.

    Args:
      data: the `data` group of a configuration.
      spec: which split, e.g. `data.train`.

    Raises:
      UserError: unknown source or option, or whatever is wrong with the folder, the names or the
        split.
    """
    given: dict[str, Any] = data.options.to_dict()
    source = SOURCES[data.source]
    options.check(f"data source {data.source!r}:", "option", source, given)
    return cut(spec, source(data, **given))


def describe() -> list[str]:
    """A line for each source: its name as in `data.source`, and what it reads."""
    lines = []
    for name, source in SOURCES.items():
        about = (source.__doc__ or "").strip().splitlines()
        lines.append(f"{name}: {about[0]}" if about else name)
    return lines
