"""Encoded records to arrays: decoded and checked when they are asked for, or all at once."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from jaxvision.data import transforms
from jaxvision.data.codecs import CorruptImageError, decode_image, decode_mask
from jaxvision.data.sources import Arrays, Selection, Source
from jaxvision.errors import UserError


@dataclass(frozen=True)
class Decode:
    """Encoded record to arrays: decode, check, map mask values. Deterministic."""

    channels: Literal[1, 3]
    num_classes: int = 0  # 0: labels are not checked
    void: tuple[int, ...] = ()
    annotations: tuple[str, ...] = ("label", "segmentation")
    mask_values: tuple[int, ...] = ()  # of each class in order; none: 0, 1, ...

    def __call__(self, record: Mapping[str, Any], name: str) -> dict[str, Any]:
        """The record with `image` uint8 [*size, c] and, where present, `segmentation` [*size].

        Raises:
          CorruptImageError: image or mask cannot be decoded.
          UserError: label out of range, or image and mask differ in size.
        """
        image = record["image"]
        if isinstance(image, np.ndarray):
            image = _with_channels(image, self.channels)
        else:
            image = decode_image(image, self.channels, name)
        out = {"image": image, **self.annotations_of(record, name)}
        if "segmentation" in out:
            mask = out["segmentation"]
            if mask.ndim == image.ndim and mask.shape[-1] == 1:
                mask = out["segmentation"] = mask[..., 0]
            if mask.shape != image.shape[:-1]:
                sizes = ["x".join(map(str, s[::-1])) for s in (image.shape[:-1], mask.shape)]
                raise UserError(f"{name}: the image is {sizes[0]} pixels, its mask {sizes[1]}.")
        return out

    def annotations_of(self, record: Mapping[str, Any], name: str) -> dict[str, Any]:
        """What is annotated, checked; the image is not looked at.

        Raises:
          CorruptImageError: the mask cannot be decoded.
          UserError: label or mask out of range.
        """
        out = {key: record[key] for key in self.annotations if key in record}
        if "label" in out:
            self.check_label(out["label"], name)
        if "segmentation" in out:
            mask = out["segmentation"]
            if not isinstance(mask, np.ndarray):
                mask = decode_mask(mask, name + " (mask)")
            out["segmentation"] = self._checked_mask(mask, name)
        return out

    def check_label(self, label: int, name: str) -> None:
        if self.num_classes and not 0 <= label < self.num_classes:
            raise UserError(
                f"{name} has label {label}, but there are {self.num_classes} classes "
                f"(0 to {self.num_classes - 1})."
            )

    def _checked_mask(self, mask: np.ndarray, name: str) -> np.ndarray:
        if mask.min(initial=0) < 0 or mask.max(initial=0) > 0xFFFF:
            raise UserError(f"The mask of {name} has values outside 0 to 65535.")
        if self.mask_values:
            table = np.full(0x10000, transforms.IGNORE, np.int32)
            table[list(self.mask_values)] = np.arange(len(self.mask_values))
            mask = table[mask]
        present = np.flatnonzero(np.bincount(mask.ravel()))
        void = [value for value in self.void if value != transforms.IGNORE]
        for value in present if self.num_classes else ():
            if self.num_classes <= value != transforms.IGNORE and value not in void:
                raise UserError(
                    f"The mask of {name} has value {value}, but there are {self.num_classes} "
                    f"classes (0 to {self.num_classes - 1}; 255 = ignore). Set data.void for "
                    "values that stand for no class."
                )
        if np.isin(void, present).any():
            mask = np.where(np.isin(mask, void), transforms.IGNORE, mask)
        return mask if self.num_classes > transforms.IGNORE else mask.astype(np.uint8)


def _with_channels(images: np.ndarray, channels: int) -> np.ndarray:
    """uint8 [..., c] with c made 1 or 3."""
    if images.shape[-1] == channels:
        return images
    if channels == 3:
        return np.repeat(images, 3, axis=-1)
    grey = np.round(images @ np.array([0.299, 0.587, 0.114], np.float32))
    return grey.astype(np.uint8)[..., None]


def as_decoded(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Of `in_memory`, in place of a `Decode`: the record as it is."""
    return dict(record)


@dataclass(frozen=True, eq=False)
class _Decoded:
    """Decoded records of differing shapes, in memory; what was corrupt still is."""

    records: tuple[dict[str, Any] | CorruptImageError, ...]
    names: tuple[str, ...]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self.records[index]
        if isinstance(record, CorruptImageError):
            raise CorruptImageError(record.name, record.reason)
        return record

    def name(self, index: int) -> str:
        return self.names[index]


def in_memory(source: Source, decode: Decode, on_corrupt: str = "error") -> Source:
    """The source with every image decoded once; one array if all have the same shape.

    Its records stand where they stood, corrupt ones too, so that batches are as without it.

    Raises:
      CorruptImageError: the first corrupt record, where `on_corrupt` is "error".
      UserError: a label is out of range, or no record is readable.
    """
    if isinstance(source, Selection) and isinstance(source.source, Arrays):
        arrays, indices = source.source, source.indices
        labels = arrays.labels[indices]
        for extreme in (int(labels.argmin()), int(labels.argmax())):
            decode.check_label(int(labels[extreme]), source.name(extreme))
        images = _with_channels(arrays.images[indices], decode.channels)
        return Arrays(images, labels, source.class_names, arrays.origin)

    def load(index: int) -> dict[str, Any] | CorruptImageError:
        try:
            return decode(source[index], source.name(index))
        except CorruptImageError as error:
            if on_corrupt == "error":
                raise
            return error

    with ThreadPoolExecutor() as pool:
        records = list(pool.map(load, range(len(source))))
    readable = [record for record in records if not isinstance(record, CorruptImageError)]
    if not readable:
        raise UserError("Every image of the split is unreadable.")
    alike = len(readable) == len(records) and len({r["image"].shape for r in readable}) == 1
    if alike and readable[0].keys() == {"image", "label"}:
        images = np.stack([record["image"] for record in readable])
        labels = np.array([record["label"] for record in readable])
        return Arrays(images, labels, source.class_names)
    names = tuple(source.name(index) for index in range(len(source)))
    return _Decoded(tuple(records), names, source.class_names)
