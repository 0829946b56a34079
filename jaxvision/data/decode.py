"""Encoded records to arrays: decoded and checked when they are asked for, or all at once."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from jaxvision.data.annotations import Kind, Settings
from jaxvision.data.annotations.label import Label
from jaxvision.data.codecs import CorruptImageError, decode_upright
from jaxvision.data.facts import Facts, facts_of
from jaxvision.data.sources import Arrays, Selection, Source, image_id
from jaxvision.errors import UserError
from jaxvision.progress import tracked


@dataclass(frozen=True)
class Decode:
    """Encoded record to arrays: decode and check. Deterministic.

    Attributes:
      channels: of the images.
      kinds: of annotations that are kept.
      settings: what they have to be.
      unused: keys of records that are not looked at, nor what is a form of them (`Kind.forms`).
    """

    channels: Literal[1, 3]
    kinds: tuple[Kind, ...] = ()
    settings: Settings = field(default_factory=Settings)
    unused: tuple[str, ...] = ()

    def __call__(self, record: Mapping[str, Any], name: str) -> dict[str, Any]:
        """The record with `image` uint8 [*size, c] and its annotations, as their kinds say.

        Raises:
          CorruptImageError: image or annotation cannot be decoded.
          UserError: an annotation is wrong, or does not fit the image.
        """
        record = self._used(record)
        image, turn = record["image"], 1
        if isinstance(image, np.ndarray):
            image = _with_channels(image, self.channels)
        else:
            limit = self.settings.max_image_pixels
            image, turn = decode_upright(image, self.channels, name, limit)
        out = {"image": image}
        for kind in self.kinds:
            if kind.present(record):
                found = kind.decode(record, name, self.settings)
                if turn > 1:
                    kind.check_turned(record, found, turn, image.shape[:-1], name)
                out.update(kind.check(found, image.shape[:-1], name))
        return out

    def annotations_of(self, record: Mapping[str, Any], name: str) -> dict[str, Any]:
        """What is annotated, checked; the image is not looked at.

        Raises:
          CorruptImageError: an annotation cannot be decoded.
          UserError: an annotation is wrong.
        """
        record = self._used(record)
        out: dict[str, Any] = {}
        for kind in self.kinds:
            if kind.present(record):
                out.update(kind.decode(record, name, self.settings))
        return out

    def _used(self, record: Mapping[str, Any]) -> Mapping[str, Any]:
        if not self.unused:
            return record
        return {key: value for key, value in record.items() if key not in self._unseen}

    @cached_property
    def _unseen(self) -> frozenset[str]:
        """What is unused, with its forms."""
        every = (item for kind in self.kinds for item in kind.forms.items())
        return frozenset((*self.unused, *(form for form, key in every if key in self.unused)))


def _with_channels(images: np.ndarray, channels: int) -> np.ndarray:
    """uint8 [..., c] with c made 1 or 3."""
    if images.shape[-1] == channels:
        return images
    if channels == 3:
        return np.repeat(images, 3, axis=-1)
    grey = np.round(images @ np.array([0.299, 0.587, 0.114], np.float32))
    return grey.astype(np.uint8)[..., None]


def as_decoded(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    """In place of a `Decode`, for what `in_memory` has decoded: a copy of the record."""
    return dict(record)


@dataclass(frozen=True, eq=False)
class _Decoded:
    """Decoded records of differing shapes, in memory; what was corrupt still is."""

    records: tuple[dict[str, Any] | CorruptImageError, ...]
    names: tuple[str, ...]
    class_names: tuple[str, ...]
    facts: Facts
    image_ids: tuple[Any, ...]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self.records[index]
        if isinstance(record, CorruptImageError):
            raise CorruptImageError(record.name, record.reason)
        return record

    def name(self, index: int) -> str:
        return self.names[index]

    def image_id(self, index: int) -> Any:
        return self.image_ids[index]


def in_memory(source: Source, decode: Decode, on_corrupt: str = "error") -> Source:
    """The source with every image decoded once; one array if all have the same shape.

    Its records stand where they stood, corrupt ones too, so that batches are as without it.

    Raises:
      CorruptImageError: the first corrupt record, where `on_corrupt` is "error".
      UserError: a label is out of range, or no record is readable.
    """
    if isinstance(source, Selection) and isinstance(source.source, Arrays):
        return _selected(source, source.source, decode)

    def load(index: int) -> dict[str, Any] | CorruptImageError:
        try:
            return decode(source[index], source.name(index))
        except CorruptImageError as error:
            if on_corrupt == "error":
                raise
            return error

    with ThreadPoolExecutor() as pool:
        count = len(source)
        records = list(tracked(pool.map(load, range(count)), "Reading records", count))
    readable = [record for record in records if not isinstance(record, CorruptImageError)]
    if not readable:
        raise UserError(f"Every image of the split is unreadable. The first: {records[0]}")
    alike = len(readable) == len(records) and len({r["image"].shape for r in readable}) == 1
    if alike and readable[0].keys() <= {"image", "label"}:
        images = np.stack([record["image"] for record in readable])
        labels = None
        if "label" in readable[0]:
            labels = np.array([record["label"] for record in readable])
        return Arrays(images, labels, source.class_names, facts=facts_of(source))
    names = tuple(source.name(index) for index in range(len(source)))
    image_ids = tuple(image_id(source, index) for index in range(len(source)))
    return _Decoded(tuple(records), names, source.class_names, facts_of(source), image_ids)


def _selected(source: Selection, arrays: Arrays, decode: Decode) -> Arrays:
    """The selected rows of arrays, checked and with the channels that a `Decode` gives."""
    labels = None
    label_kinds = [kind for kind in decode.kinds if isinstance(kind, Label)]
    if arrays.labels is not None and label_kinds:
        labels = arrays.labels[source.indices]
        for extreme in (int(labels.argmin()), int(labels.argmax())):
            label_kinds[0].checked(int(labels[extreme]), source.name(extreme), decode.settings)
    images = _with_channels(arrays.images[source.indices], decode.channels)
    return Arrays(images, labels, source.class_names, arrays.origin, facts_of(source))
