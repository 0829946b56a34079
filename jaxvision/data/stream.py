"""The record at each position, read, decoded and moved: a pure function of seed and position."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxvision.data import annotations as kinds_of
from jaxvision.data import balance, transforms
from jaxvision.data import palette as palettes
from jaxvision.data.annotations import Kind, Settings
from jaxvision.data.batches import Batch, stack
from jaxvision.data.buckets import Buckets
from jaxvision.data.codecs import MAX_PIXELS, CorruptImageError
from jaxvision.data.decode import Decode, as_decoded, in_memory
from jaxvision.data.geometry import Geometry
from jaxvision.data.grouping import NOTHING, Grouping
from jaxvision.data.image_sizes import image_sizes
from jaxvision.data.order import Order, record_generator
from jaxvision.data.palette import Palette
from jaxvision.data.sources import Arrays, Selection, Source, open_split
from jaxvision.data.sources.splits import labels_of
from jaxvision.data.tokenizer import Tokenizer
from jaxvision.errors import UserError

# What never leaves the loader:
CORRUPT = "corrupt"  # record index of a replaced record, -1 elsewhere
LEFT_OUT = "left_out"  # objects of a record that are more than its row holds
INTERNAL = (CORRUPT, LEFT_OUT)

Shape = tuple[int, int] | None


@dataclass(frozen=True)
class Stream:
    """Record at each position: read, decoded, transformed; corrupt ones replaced or refused.

    In training the place of a corrupt record is taken by the next readable one of the order; in
    evaluation (`padding`) its place is not valid, nor are the positions that fill a batch. Only
    there records carry `geometry` f32 [3, 3] and `image_size` i32, which take predictions back to
    the photograph (`jaxvision.data.geometry`).

    Of transforms with buckets all records have the shape that holds any, or, where they are
    `grouped`, that of their batch.

    Attributes:
      source: the records.
      order: which of them stands where.
      decode: makes arrays of a record, by its name.
      transform: host transforms, if there are any.
      kinds: of annotations.
      settings: theirs.
      on_corrupt: "error" or "skip".
      padding: whether this is evaluation.
      spec: the split, as the configuration names it.
      vocabulary: of the texts, as `Facts.vocabulary` keeps it.
      palette: of the images, as `Facts.palette` keeps it.
    """

    source: Source
    order: Order
    decode: Callable[[Mapping[str, Any], str], dict[str, Any]]
    transform: transforms.Pipeline | None = None
    kinds: tuple[Kind, ...] = ()
    settings: Settings = field(default_factory=Settings)
    on_corrupt: str = "error"
    padding: bool = False
    spec: str = ""
    vocabulary: Mapping[str, Any] | None = None
    palette: Palette = ()

    def __getitem__(self, position: int) -> dict[str, Any]:
        return self._record(position, self._shape([position]))

    def _record(self, position: int, shape: Shape) -> dict[str, Any]:
        """The record at a position, or what stands for it, of `shape` where there are buckets."""
        index = self.order(position)[1]
        if self.padding and (position >= self.order.length or index == NOTHING):
            return self._blank(shape)
        record = self._prepare(position, shape)
        if record is not None:
            return {**record, CORRUPT: np.int32(-1)}
        corrupt = np.int32(index)
        if self.padding:
            return {**self._blank(shape), CORRUPT: corrupt}
        for later in range(position + 1, position + self.order.length):
            record = self._prepare(later, shape)
            if record is not None:
                return {**record, CORRUPT: corrupt}
        raise UserError("Every image of the split is unreadable.")

    def grouped(self, batch_size: int) -> "Stream":
        """The same records in batches of one bucket each, where the transforms have buckets.

        The headers of all images are read for it.

        Args:
          batch_size: records of a batch, of all processes together.

        Raises:
          CorruptImageError: a header cannot be read, and corrupt records are not skipped.
        """
        if self._buckets is None:
            return self
        limit = self.settings.max_image_pixels
        sizes = image_sizes(self.source, limit, skip=self.on_corrupt == "skip")
        places = [0 if size is None else self._buckets.of_image(size) for size in sizes]
        grouping = Grouping(self._buckets, np.array(places), batch_size)
        return replace(self, order=replace(self.order, grouping=grouping))

    @property
    def _buckets(self) -> Buckets | None:
        return None if self.transform is None else self.transform.buckets

    def _shape(self, positions: Sequence[int]) -> Shape:
        """The shape that holds the batches of these positions; None without buckets."""
        if self._buckets is None:
            return None
        if self.order.grouping is None:
            return self._buckets.whole
        places = {self.order.bucket(position) for position in positions}
        return self._buckets.shapes[self._buckets.together(places)]

    def name(self, record: Mapping[str, Any]) -> str:
        """The name of a record that this stream gave."""
        return self.source.name(int(record["image_id"]))

    def describe(self) -> str:
        """`1,437 records of 'train'`, and how many of each class where that needs no reading."""
        text = f"{self.order.count:,} records of {self.spec!r}"
        if self.order.grouping is not None:
            text = f"{text}, in batches of {self.order.grouping.describe(not self.padding)}"
        labels = labels_of(self.source)
        if labels is None:
            return text
        names = self.source.class_names
        counts = np.bincount(labels, minlength=len(names))
        order = np.argsort(counts, kind="stable")
        if len(names) <= 12:
            each = ", ".join(f"{name} {count}" for name, count in zip(names, counts))
            return f"{text} ({each})"
        few, many = order[0], order[-1]
        return (
            f"{text}, {len(names)} classes of {counts[few]} ({names[few]}) to {counts[many]} "
            f"({names[many]})"
        )

    def _prepare(self, position: int, shape: Shape) -> dict[str, Any] | None:
        """The record ready to be batched, or None if it is corrupt and may be skipped."""
        epoch, index = self.order(position)
        name = self.source.name(index)
        try:
            record = self.decode(self.source[index], name)
        except CorruptImageError:
            if self.on_corrupt == "error":
                raise
            return None
        size = record["image"].shape[:-1]
        if self.padding:
            record["image_size"] = np.array(size, np.int32)
            record["geometry"] = Geometry.identity(size)
        rng = record_generator(self.order.seed, epoch, index)
        if self.transform is not None:
            record = self.transform(record, rng, shape)
        geometry = record.pop("geometry", None)
        if self.padding:
            record["geometry"] = geometry.as_array()
        if "image" in record:  # a copy, where a crop left a window that keeps the whole in memory
            record["image"] = np.ascontiguousarray(record["image"])
        left_out = 0
        for kind in self.kinds:
            if kind.present(record):
                if not self.padding:
                    record.update(kind.draw(record, rng))
                left_out += kind.left_out(record, self.settings)
                row = kind.pad(record, name, self.settings)
                for key in kind.record_keys:
                    record.pop(key, None)
                record.update(row)
            elif kind.required:
                raise UserError(f"{name} has no {kind.batch_keys[0]}, and every record needs one.")
        record["image_id"] = np.int32(index)
        record["valid"] = np.True_
        record[LEFT_OUT] = np.int32(left_out)
        return record

    def _blank(self, shape: Shape) -> dict[str, Any]:
        """A row that stands for no record, with the shapes of the first readable one."""
        if shape not in self._blanks:
            self._blanks[shape] = self._new_blank(shape)
        return self._blanks[shape]

    @cached_property
    def _blanks(self) -> dict[Shape, dict[str, Any]]:
        return {}

    def _new_blank(self, shape: Shape) -> dict[str, Any]:
        for position in self.order.held():
            record = self._prepare(position, shape)
            if record is not None:
                blank = {key: np.zeros_like(value)[()] for key, value in record.items()}
                for kind in self.kinds:
                    if any(key in record for key in kind.batch_keys):
                        blank.update(kind.blank(record))
                blank["geometry"] = np.eye(3, dtype=np.float32)  # there is a way back from it
                return {**blank, CORRUPT: np.int32(-1)}
        raise UserError("Every image of the split is unreadable.")

    @property
    def vectorised(self) -> bool:
        """Whether batches are gathered from one array, without a loop over records."""
        return isinstance(self.source, Arrays) and self.transform is None

    def example(self) -> Batch:
        """A batch of one record, of the shape that holds all of the training's; in evaluation, of
        the first batch's."""
        if self._buckets is None or self.padding:
            return self.batch([0])
        return stack([self._record(0, self._buckets.whole)], self.name)

    def batch(self, positions: Sequence[int]) -> Batch:
        """The records at `positions`, stacked."""
        if not isinstance(self.source, Arrays) or self.transform is not None:
            shape = self._shape(positions)
            return stack([self._record(position, shape) for position in positions], self.name)
        valid = np.asarray(positions) < (self.order.count if self.padding else np.inf)
        indices = self.order.indices(positions) * valid
        images = self.source.images[indices]
        images[~valid] = 0
        batch = {"image": images}
        if self.source.labels is not None:
            batch["label"] = self.source.labels[indices].astype(np.int32)
            batch["label"][~valid] = 0
        if self.padding:
            size = np.array(images.shape[1:-1], np.int32)
            batch["image_size"] = size * valid[:, None]
            batch["geometry"] = np.tile(np.eye(3, dtype=np.float32), (len(images), 1, 1))
        return {
            **batch,
            "image_id": indices.astype(np.int32),
            "valid": valid,
            CORRUPT: np.full(len(images), -1, np.int32),
            LEFT_OUT: np.zeros(len(images), np.int32),
        }


def open_stream(
    data: ConfigDict,
    spec: str,
    *,
    seed: int,
    train: bool,
    annotations: tuple[str, ...] = ("label", "segmentation"),
    unused: tuple[str, ...] = (),
    vocabulary: Mapping[str, Any] | None = None,
    palette: Palette = (),
) -> Stream:
    """The stream of one split of the configured data.

    Args:
      data: the `data` group of a configuration, its classes known.
      spec: which split.
      seed: decides the order and the random transforms.
      annotations: kinds (`jaxvision.data.annotations`) that are kept beside the image, as the task
        needs them.
      unused: parts of them, by their keys in records, that are left out.
      vocabulary: `Facts.vocabulary` of the run, where it has begun; None: of a split to train on it
        is learned.
      palette: `Facts.palette` of the run, alike.
      train: shuffled and endless with the training transforms, or in order with the others.

    Raises:
      UserError: whatever is wrong with the data or the transforms.
    """
    kinds = kinds_of.named(annotations)
    source = open_split(data, spec)
    settings = settings_of(data, len(data.classes) or len(source.class_names))
    if train:
        _survey(source, kinds, settings, seed)
    if vocabulary is None:
        vocabulary = vocabulary_of(data, kinds, source if train else None)
    settings = with_vocabulary(settings, vocabulary)
    decoder = Decode(data.channels, kinds, settings, unused)
    decode: Callable[..., dict[str, Any]] = decoder
    annotate: Callable[..., dict[str, Any]] = decoder.annotations_of
    if data.cache or (isinstance(source, Selection) and isinstance(source.source, Arrays)):
        source = in_memory(source, decoder, data.on_corrupt)
        decode = annotate = as_decoded
    steps = data.train_transforms if train else data.eval_transforms
    transform = transforms.compose(steps, kinds)  # unknown names are met here, not in a thread
    if not train and transform.random:
        raise UserError("data.eval_transforms are random; evaluation must be deterministic.")
    shares = None
    if train and data.balance:
        present = balance.presence(source, annotate, kinds, settings.num_classes)
        shares = balance.shares(present, data.balance)
    order = Order(len(source), seed, train, shares)
    stream = Stream(
        source,
        order,
        decode,
        transform if steps else None,
        kinds,
        settings,
        data.on_corrupt,
        padding=not train,
        spec=spec,
        vocabulary=vocabulary,
    )
    return replace(stream, palette=palette or palettes.of(data, stream if train else None))


def vocabulary_of(
    data: ConfigDict, kinds: Sequence[Kind], source: Source | None
) -> dict[str, Any] | None:
    """What the first of the kinds says that has texts, see `Kind.vocabulary`."""
    found = (kind.vocabulary(data, source) for kind in kinds)
    return next((one for one in found if one is not None), None)


def with_vocabulary(settings: Settings, vocabulary: Mapping[str, Any] | None) -> Settings:
    """The settings with the tokenizer of a vocabulary, where there is one.

    Raises:
      UserError: the vocabulary is damaged.
    """
    return settings if vocabulary is None else replace(settings, tokenizer=Tokenizer.of(vocabulary))


def _survey(source: Source, kinds: Sequence[Kind], settings: Settings, seed: int) -> None:
    """Looks whether the annotations of a split to train on suit the configuration.

    Raises:
      UserError: they do not, see `Kind.survey`.
    """
    order = Order(len(source), seed)  # shuffled: a split that is sorted by class shows them soon
    for kind in kinds:
        indices = (order(position)[1] for position in range(len(source)))
        kind.survey(((source[index], source.name(index)) for index in indices), settings)


def settings_of(data: ConfigDict, classes: int) -> Settings:
    """What annotations have to be, by the configuration.

    Raises:
      UserError: not every class has a value in masks, or a limit is none.
    """
    values, colours = tuple(data.mask_values), tuple(map(_colour, data.get("mask_colours", ())))
    for key, given in (("mask_values", values), ("mask_colours", colours)):
        if given and len(given) != classes:
            raise UserError(f"data.{key} has {len(given)} values for {classes} classes.")
        if len(set(given)) < len(given):
            raise UserError(f"data.{key} names a value twice: {given}.")
    if colours and (values or data.void):
        raise UserError(
            "data.mask_colours names the classes of masks; data.mask_values and data.void are of "
            "masks of one channel. Colours that are not named stand for no class."
        )
    if both := sorted(set(values) & set(data.void)):
        raise UserError(
            f"data.void and data.mask_values both have {both[0]}; a value is a class or none."
        )
    limits = {}
    usual_limits = {
        "max_instances": 100,
        "max_proposals": 300,
        "max_caption": 512,
        "max_captions": 5,
        "max_tokens": 32,
        "max_image_pixels": MAX_PIXELS,
    }
    for key, usual in usual_limits.items():
        limits[key] = data.get(key, usual)
        if not isinstance(limits[key], int) or limits[key] < 1:
            raise UserError(f"data.{key} is {limits[key]!r}; expected 1 or more.")
    return Settings(classes, tuple(data.void), values, colours, **limits)


def _colour(value: Any) -> tuple[int, int, int]:
    """Raises:
    UserError: it is no (red, green, blue).
    """
    whole = isinstance(value, Sequence) and all(isinstance(v, int) for v in value)
    if not whole or len(value) != 3 or not all(0 <= v <= 255 for v in value):
        raise UserError(f"data.mask_colours holds (red, green, blue) from 0 to 255, not {value!r}.")
    red, green, blue = value
    return red, green, blue
