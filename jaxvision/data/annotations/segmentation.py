"""The class of each pixel: `segmentation` [b, h, w], or [b, d, h, w] of volumes.

It is uint8, and 255 stands for no class; or, of more than 255 classes, int32 and 65535.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Array

from jaxvision.data import notices
from jaxvision.data.annotations.kind import Kind, Record, Settings
from jaxvision.data.codecs import (
    CorruptImageError,
    decode_colours,
    decode_mask,
    orientation_of,
    packed_colours,
)
from jaxvision.data.geometry import Geometry
from jaxvision.data.label_maps import WIDE_IGNORE, ignored, label_type
from jaxvision.data.motion import Motion
from jaxvision.data.segment_maps import SegmentMap
from jaxvision.errors import UserError


class Segmentation(Kind):
    """One class a pixel, or none."""

    record_keys = batch_keys = ("segmentation",)
    placed = True

    def decode(self, record: Record, name: str, settings: Settings) -> dict[str, Any]:
        return {"segmentation": _checked(_stored(record, name, settings), name, settings)}

    def survey(self, records: Iterable[tuple[Record, str]], settings: Settings) -> None:
        if settings.num_classes < 2:
            return
        pixels: Counter[int] = Counter()
        masks = 0
        for record, name in records:
            if not self.present(record):
                return
            try:
                mask = _stored(record, name, settings)
            except CorruptImageError:
                continue
            values, counts = np.unique(mask, return_counts=True)
            pixels.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
            masks += 1
            if len(_classes(pixels, settings)) > 1:
                return
        if masks:
            raise UserError(_one_class(pixels, masks, settings))

    def check_turned(
        self, record: Record, found: Mapping[str, Any], turn: int, size: tuple[int, ...], name: str
    ) -> None:
        check_turned(record["segmentation"], found["segmentation"].shape, turn, size, name)

    def check(self, found: dict[str, Any], size: tuple[int, ...], name: str) -> dict[str, Any]:
        return {"segmentation": fitted(found["segmentation"], size, name)}

    def move(self, record: Record, geometry: Geometry) -> dict[str, Any]:
        mask = record["segmentation"]
        return {"segmentation": geometry.labels(mask, ignored(mask.dtype))}

    def pad(self, record: Record, name: str, settings: Settings) -> dict[str, np.ndarray]:
        return {"segmentation": record["segmentation"]}

    def blank(self, row: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        mask = row["segmentation"]
        return {"segmentation": np.full_like(mask, ignored(mask.dtype))}

    def classes(self, record: Record) -> np.ndarray:
        return np.unique(record["segmentation"])

    def move_on_device(self, batch: Mapping[str, Array], motion: Motion) -> dict[str, Array]:
        return {"segmentation": motion.classes(batch["segmentation"])}


def fitted(mask: np.ndarray, size: tuple[int, ...], name: str) -> np.ndarray:
    """A map of an image of `size`, without an axis of one channel.

    Raises:
      UserError: it has another size.
    """
    if mask.ndim == len(size) + 1 and mask.shape[-1] == 1:
        mask = mask[..., 0]
    if mask.shape != size:
        sizes = ["x".join(map(str, s[::-1])) for s in (size, mask.shape)]
        raise UserError(f"{name}: the image is {sizes[0]} pixels, its mask {sizes[1]}.")
    return mask


def check_turned(
    mask: Any, shape: tuple[int, ...], turn: int, size: tuple[int, ...], name: str
) -> None:
    """Looks whether a mask was turned as its image was, which was turned upright by its EXIF tag.

    Args:
      mask: as it is stored.
      shape: of the decoded mask.
      turn: the EXIF orientation of the image, 2 to 8.
      size: (height, width) of the upright image.
      name: of the record.

    Raises:
      UserError: it lies on the image as that was stored.
    """
    turns = not isinstance(mask, (np.ndarray, SegmentMap))
    if not turns or orientation_of(mask, name + " (mask)") == 1:
        remedy = (
            "Turn the mask, or give it the same tag "
            "(exiftool -TagsFromFile PHOTO -Orientation MASK)."
        )
        turned_alike("mask", shape[:2], turn, size, name, remedy)


def turned_alike(
    what: str,
    drawn_on: tuple[int, ...],
    turn: int,
    size: tuple[int, ...],
    name: str,
    remedy: str,
) -> None:
    """Looks whether what has no orientation of its own was drawn on the upright photograph.

    Sizes tell of quarter turns. Of half a turn or a square nothing tells: it is said, once.

    Args:
      what: lies on the image: `mask` or `boxes`.
      drawn_on: (height, width) of the image on which it was drawn.
      turn: the EXIF orientation of the image, 2 to 8.
      size: (height, width) of the upright image.
      name: of the record.
      remedy: what can be done.

    Raises:
      UserError: it lies on the image as that was stored.
    """
    stored = size[::-1] if turn >= 5 else size
    verb, was = ("are", "were") if what.endswith("s") else ("is", "was")
    if drawn_on == stored != size:
        raise UserError(
            f"{name} has EXIF orientation {turn}, which turns it to {size[1]}x{size[0]} pixels; "
            f"its {what} {verb} of {drawn_on[1]}x{drawn_on[0]}, as the photograph is stored. "
            f"{remedy}"
        )
    if drawn_on == stored == size:
        notices.once(
            "turned",
            f"{name} is turned by its EXIF orientation {turn}, and its {what} {verb} not; their "
            f"size does not tell whether the {what} {was} drawn on the turned photograph. It is "
            "taken as if so. (Said of the first such photograph only.)",
        )


def _stored(record: Record, name: str, settings: Settings) -> np.ndarray:
    """The values of a source's mask, as they are stored; of colours, packed into one integer."""
    mask, name = record["segmentation"], name + " (mask)"
    if isinstance(mask, SegmentMap):
        return mask.decoded(name, settings.max_image_pixels)
    if isinstance(mask, np.ndarray):
        return packed_colours(mask, name) if settings.mask_colours else mask
    decode = decode_colours if settings.mask_colours else decode_mask
    return decode(mask, name, settings.max_image_pixels)


def _values(settings: Settings) -> tuple[int, ...]:
    """The stored value of each class; empty: 0, 1, ..."""
    if settings.mask_colours:
        colours = np.array(settings.mask_colours, np.uint8)
        return tuple(packed_colours(colours[None], "data.mask_colours")[0].tolist())
    return settings.mask_values


def _classes(stored: Iterable[int], settings: Settings) -> list[int]:
    """Those of the stored values that are classes."""
    if values := _values(settings):
        return [value for value in stored if value in values]
    nothing = {ignored(label_type(settings.num_classes)), *settings.void}
    return [value for value in stored if value not in nothing]


def _one_class(pixels: Mapping[int, int], masks: int, settings: Settings) -> str:
    """What is said where masks hold fewer than two of several classes."""
    total = sum(pixels.values())
    often = sorted(sorted(pixels, key=pixels.__getitem__)[-10:])
    named = {v: (v >> 16, v >> 8 & 255, v & 255) if settings.mask_colours else v for v in often}
    shown = ", ".join(f"{named[value]} ({pixels[value] / total:.1%})" for value in often)
    count = len(_classes(pixels, settings))
    text = (
        f"There are {settings.num_classes} classes, but {masks} masks of the split hold "
        f"{'only one of them' if count else 'none of them'}. Values found: {shown}."
    )
    if settings.mask_colours:
        return f"{text} data.mask_colours names the colour of each class."
    values = [value for value in sorted(pixels) if value not in settings.void]
    if len(values) == settings.num_classes:
        mended = tuple(values)
        return f"{text} Set data.mask_values={mended} if these are the classes, in this order."
    return f"{text} data.mask_values names the stored value of each class."


def _checked(mask: np.ndarray, name: str, settings: Settings) -> np.ndarray:
    """The mask with classes counted from 0, and `ignored` where there is none.

    Raises:
      UserError: a value is no class.
    """
    classes = settings.num_classes
    if classes > WIDE_IGNORE:
        raise UserError(f"Masks have up to {WIDE_IGNORE} classes, not {classes}.")
    kept = label_type(classes) if classes or mask.dtype == np.uint8 else np.dtype(np.int32)
    nothing = ignored(kept)
    if settings.mask_colours:
        return _looked_up(mask, np.array(_values(settings)), nothing).astype(kept)
    if mask.min(initial=0) < 0 or mask.max(initial=0) > 0xFFFF:
        raise UserError(f"The mask of {name} has values outside 0 to 65535.")
    if settings.mask_values:  # void among them is refused at the door
        table = np.full(0x10000, nothing, kept)
        table[list(settings.mask_values)] = np.arange(len(settings.mask_values))
        return table[mask]
    present = np.flatnonzero(np.bincount(mask.ravel()))
    void = [value for value in settings.void if value != nothing]
    for value in present if classes else ():
        if classes <= value != nothing and value not in void:
            raise UserError(
                f"The mask of {name} has value {value}, but there are {classes} "
                f"classes (0 to {classes - 1}; {nothing} = ignore). Set data.void for "
                "values that stand for no class."
            )
    if np.isin(void, present).any():
        mask = np.where(np.isin(mask, void), nothing, mask)
    return mask.astype(kept)


def _looked_up(mask: np.ndarray, values: np.ndarray, nothing: int) -> np.ndarray:
    """The place of each pixel's value among the values; `nothing` of others."""
    order = np.argsort(values)
    place = np.searchsorted(values, mask, sorter=order).clip(max=len(values) - 1)
    return np.where(values[order[place]] == mask, order[place], nothing)
