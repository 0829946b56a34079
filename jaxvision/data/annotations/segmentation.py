"""The class of each pixel: `segmentation` [b, h, w], or [b, d, h, w] of volumes; 255 = ignore.

It is uint8, or int32 where there are more classes than 255.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Array

from jaxvision.data.annotations.kind import Kind, Record, Settings
from jaxvision.data.codecs import CorruptImageError, decode_mask
from jaxvision.data.geometry import IGNORE, Geometry
from jaxvision.data.motion import Motion
from jaxvision.errors import UserError


class Segmentation(Kind):
    """One class a pixel, or none."""

    record_keys = batch_keys = ("segmentation",)
    placed = True

    def decode(self, record: Record, name: str, settings: Settings) -> dict[str, Any]:
        return {"segmentation": _checked(_stored(record, name), name, settings)}

    def survey(self, records: Iterable[tuple[Record, str]], settings: Settings) -> None:
        if settings.num_classes < 2:
            return
        pixels: Counter[int] = Counter()
        masks = 0
        for record, name in records:
            if not self.present(record):
                return
            try:
                mask = _stored(record, name)
            except CorruptImageError:
                continue
            values, counts = np.unique(mask, return_counts=True)
            pixels.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
            masks += 1
            if len(_classes(pixels, settings)) > 1:
                return
        if masks:
            raise UserError(_one_class(pixels, masks, settings))

    def check(self, found: dict[str, Any], size: tuple[int, ...], name: str) -> dict[str, Any]:
        return {"segmentation": fitted(found["segmentation"], size, name)}

    def move(self, record: Record, geometry: Geometry) -> dict[str, Any]:
        return {"segmentation": geometry.labels(record["segmentation"], IGNORE)}

    def pad(self, record: Record, name: str, settings: Settings) -> dict[str, np.ndarray]:
        return {"segmentation": record["segmentation"]}

    def blank(self, row: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"segmentation": np.full_like(row["segmentation"], IGNORE)}

    def classes(self, record: Record) -> np.ndarray:
        return np.unique(record["segmentation"])

    def move_on_device(self, batch: Mapping[str, Array], motion: Motion) -> dict[str, Array]:
        return {"segmentation": motion.labels(batch["segmentation"], motion.fill)}


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


def _stored(record: Record, name: str) -> np.ndarray:
    """The values of a source's mask, as they are stored."""
    mask = record["segmentation"]
    return mask if isinstance(mask, np.ndarray) else decode_mask(mask, name + " (mask)")


def _classes(stored: Iterable[int], settings: Settings) -> list[int]:
    """Those of the stored values that are classes."""
    if settings.mask_values:
        return [value for value in stored if value in settings.mask_values]
    return [value for value in stored if value != IGNORE and value not in settings.void]


def _one_class(pixels: Mapping[int, int], masks: int, settings: Settings) -> str:
    """What is said where masks hold fewer than two of several classes."""
    total = sum(pixels.values())
    shown = ", ".join(f"{value} ({pixels[value] / total:.1%})" for value in sorted(pixels)[:10])
    count = len(_classes(pixels, settings))
    text = (
        f"There are {settings.num_classes} classes, but {masks} masks of the split hold "
        f"{'only one of them' if count else 'none of them'}. Values found: {shown}."
    )
    values = [value for value in sorted(pixels) if value not in settings.void]
    if len(values) == settings.num_classes:
        mended = tuple(values)
        return f"{text} Set data.mask_values={mended} if these are the classes, in this order."
    return f"{text} data.mask_values names the stored value of each class."


def _checked(mask: np.ndarray, name: str, settings: Settings) -> np.ndarray:
    """The mask with classes counted from 0, and 255 where there is none.

    Raises:
      UserError: a value is no class.
    """
    classes = settings.num_classes
    if mask.min(initial=0) < 0 or mask.max(initial=0) > 0xFFFF:
        raise UserError(f"The mask of {name} has values outside 0 to 65535.")
    kept = np.int32 if classes > IGNORE else np.uint8
    if settings.mask_values:  # void among them is refused at the door
        table = np.full(0x10000, IGNORE, kept)
        table[list(settings.mask_values)] = np.arange(len(settings.mask_values))
        return table[mask]
    present = np.flatnonzero(np.bincount(mask.ravel()))
    void = [value for value in settings.void if value != IGNORE]
    for value in present if classes else ():
        if classes <= value != IGNORE and value not in void:
            raise UserError(
                f"The mask of {name} has value {value}, but there are {classes} "
                f"classes (0 to {classes - 1}; 255 = ignore). Set data.void for "
                "values that stand for no class."
            )
    if np.isin(void, present).any():
        mask = np.where(np.isin(mask, void), IGNORE, mask)
    return mask.astype(kept)
