"""Batches on the device: a pure function of (seed, batch number), fed by Grain.

`Stream` says which record stands at which position and prepares it; it holds no state, so batch k
is the same whatever the number of threads, worker processes or hosts, and resuming is starting
at k. Grain runs it in threads or processes ahead of the training.
"""

import os
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Literal

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxvision.data import balance, transforms
from jaxvision.data.batches import Batch, Filling, stack
from jaxvision.data.codecs import CorruptImageError, decode_image, decode_mask
from jaxvision.data.sources import Arrays, Selection, Source, open_split
from jaxvision.errors import UserError

_CORRUPT = "corrupt"  # record index of a replaced record, -1 elsewhere; never leaves the loader
_HOST_ONLY = ("image_size",)
_CHUNK = 32  # records that a reading thread prepares at a time


@dataclass(frozen=True, eq=False)
class Order:
    """Which record stands at which position of the endless training sequence.

    Every epoch is a permutation of its own of all records, or as many drawn by their shares;
    unshuffled, epochs follow one another.

    Attributes:
      shares: how often each record comes, relative to the others; None: once an epoch.
    """

    count: int
    seed: int = 0
    shuffle: bool = True
    shares: np.ndarray | None = None

    def __call__(self, position: int) -> tuple[int, int]:
        """(epoch, record index) at `position`."""
        epoch, offset = divmod(position, self.count)
        if not self.shuffle:
            return epoch, offset
        return epoch, int(_of_epoch(self, epoch)[offset])

    def indices(self, positions: Sequence[int]) -> np.ndarray:
        """Record indices at `positions`."""
        epochs, offsets = np.divmod(np.asarray(positions), self.count)
        if not self.shuffle:
            return offsets
        found = np.empty_like(offsets)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            found[here] = _of_epoch(self, int(epoch))[offsets[here]]
        return found


@lru_cache(maxsize=4)
def _of_epoch(order: Order, epoch: int) -> np.ndarray:
    rng = np.random.default_rng((order.seed, epoch, 0, 1))
    if order.shares is None:
        return rng.permutation(order.count)
    return balance.draw(order.shares, rng)


_thread = threading.local()


def record_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The random numbers of one record in one epoch; the thread's next call takes them back.

    Philox, keyed by seed and epoch, counts from the record's index on. A generator of its own for
    each record would take as long as a twentieth of a photograph's decoding.
    """
    generator = getattr(_thread, "generator", None)
    if generator is None:
        generator = _thread.generator = np.random.Generator(np.random.Philox(0))
    counter, key = np.zeros(4, np.uint64), np.array((seed % 2**64, epoch), np.uint64)
    counter[-1] = index
    generator.bit_generator.state = {
        "bit_generator": "Philox",
        "state": {"counter": counter, "key": key},
        "buffer": np.zeros(4, np.uint64),
        "buffer_pos": 4,  # it is used up
        "has_uint32": 0,
        "uinteger": 0,
    }
    return generator


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


def _as_decoded(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    return dict(record)


@dataclass(frozen=True)
class Stream:
    """Record at each position: read, decoded, transformed; corrupt ones replaced or refused.

    In training the place of a corrupt record is taken by the next readable one of the order; in
    evaluation (`padding`) its place is masked out, as are the positions past the end that fill the
    last batch.
    """

    source: Source
    order: Order
    decode: Callable[[Mapping[str, Any], str], dict[str, Any]]
    steps: tuple[Mapping[str, Any], ...] = ()
    on_corrupt: str = "error"
    padding: bool = False

    def __getitem__(self, position: int) -> dict[str, Any]:
        if self.padding and position >= self.order.count:
            return self._blank
        record = self._prepare(position)
        if record is not None:
            return {**record, _CORRUPT: np.int32(-1)}
        corrupt = np.int32(self.order(position)[1])
        if self.padding:
            return {**self._blank, _CORRUPT: corrupt}
        for later in range(position + 1, position + self.order.count):
            record = self._prepare(later)
            if record is not None:
                return {**record, _CORRUPT: corrupt}
        raise UserError("Every image of the split is unreadable.")

    @cached_property
    def _transform(self) -> Callable[[dict[str, Any], np.random.Generator], dict[str, Any]]:
        return transforms.compose(self.steps)

    def _prepare(self, position: int) -> dict[str, Any] | None:
        """The record ready to be batched, or None if it is corrupt and may be skipped."""
        epoch, index = self.order(position)
        try:
            record = self.decode(self.source[index], self.source.name(index))
        except CorruptImageError:
            if self.on_corrupt == "error":
                raise
            return None
        record["image_size"] = np.int32(record["image"].shape[:2])
        if self.steps:
            record = self._transform(record, record_generator(self.order.seed, epoch, index))
        # A copy, where a crop left a window that keeps the whole image in memory.
        record["image"] = np.ascontiguousarray(record["image"])
        record["image_id"] = np.int32(index)
        record["mask"] = np.True_
        if "label" in record:
            record["label"] = np.int32(record["label"])
        return record

    @cached_property
    def _blank(self) -> dict[str, Any]:
        """A record of zeros with the shapes of the first readable one; masks are all ignore."""
        for position in range(self.order.count):
            record = self._prepare(position)
            if record is not None:
                blank = {key: np.zeros_like(value) for key, value in record.items()}
                if "segmentation" in blank:
                    blank["segmentation"] = np.full_like(blank["segmentation"], transforms.IGNORE)
                return {**blank, _CORRUPT: np.int32(-1)}
        raise UserError("Every image of the split is unreadable.")

    @property
    def vectorised(self) -> bool:
        """Whether batches are gathered from one array, without a loop over records."""
        return isinstance(self.source, Arrays) and not self.steps

    def batch(self, positions: Sequence[int]) -> Batch:
        """The records at `positions`, stacked."""
        if not isinstance(self.source, Arrays) or self.steps:
            return stack([self[position] for position in positions])
        valid = np.asarray(positions) < (self.order.count if self.padding else np.inf)
        indices = self.order.indices(positions) * valid
        images, labels = self.source.images[indices], self.source.labels[indices].astype(np.int32)
        images[~valid], labels[~valid] = 0, 0
        return {
            "image": images,
            "label": labels,
            "image_id": indices.astype(np.int32),
            "image_size": np.int32(images.shape[1:3]) * valid[:, None],
            "mask": valid,
            _CORRUPT: np.full(len(images), -1, np.int32),
        }


@dataclass(frozen=True)
class Share:
    """The part of every global batch that this process feeds: one contiguous block of rows."""

    batch_size: int  # of all processes together
    process: int = 0
    processes: int = 1

    def __post_init__(self):
        if self.batch_size % self.processes:
            raise UserError(
                f"Batch size {self.batch_size} is not divisible by {self.processes} processes."
            )

    @property
    def rows(self) -> int:
        """Of a batch, that this process feeds."""
        return self.batch_size // self.processes

    def positions(self, batch: int) -> range:
        """Positions in the global order of this process's rows of batch number `batch`."""
        start = batch * self.batch_size + self.process * self.rows
        return range(start, start + self.rows)


@dataclass(frozen=True)
class _Chunks:
    """Grain source: this process's records, a few of one batch at a time, put where they belong.

    What Grain does for an element takes Python as long as a tenth of a photograph's decoding.
    """

    stream: Stream
    share: Share
    start: int
    stop: int
    filling: Filling

    @property
    def each(self) -> int:
        """Chunks of a batch."""
        return -(-self.share.rows // _CHUNK)

    def __len__(self) -> int:
        return (self.stop - self.start) * self.each

    def __getitem__(self, index: int) -> int:
        """The number of the batch that the chunk is part of."""
        number, chunk = divmod(int(index), self.each)
        positions = self.share.positions(self.start + number)
        for row in range(self.share.rows)[chunk * _CHUNK : (chunk + 1) * _CHUNK]:
            self.filling.put(number, row, self.stream[positions[row]])
        return number


@dataclass(frozen=True)
class _Batches:
    """Grain source: this process's batches."""

    stream: Stream
    share: Share
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> Batch:
        return self.stream.batch(self.share.positions(self.start + int(index)))


def host_batches(
    stream: Stream,
    share: Share,
    start: int,
    stop: int,
    *,
    threads: int = 0,
    workers: int = 0,
) -> Generator[Batch]:
    """Batches `start` to `stop` of this process, read ahead.

    Args:
      threads: reading threads (0: one a core). The decoders release the GIL.
      workers: worker processes instead of threads in this one; batches stay the same.
    """
    import grain

    if stop <= start:
        return
    threads = threads or os.cpu_count() or 1
    if workers or stream.vectorised:
        # A worker owns whole batches; were it records, the order would depend on their number.
        dataset = grain.MapDataset.source(_Batches(stream, share, start, stop)).to_iter_dataset(
            grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
        )
        if workers:
            _parse_absl_flags()
            dataset = dataset.mp_prefetch(
                grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
            )
    else:
        filling = Filling(share.rows)
        chunks = _Chunks(stream, share, start, stop, filling)
        ahead = max(threads, 2 * chunks.each)
        dataset = (
            grain.MapDataset.source(chunks)
            .to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead))
            .batch(chunks.each, batch_fn=lambda numbers: filling.take(numbers[0]))
        )
    with closing(iter(dataset)) as batches:  # ends threads and workers, whatever ends the reading
        yield from batches


def _parse_absl_flags() -> None:
    """Grain's worker processes read absl flags, which a library call may not have parsed."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["jaxvision"])


@dataclass
class Loader:
    """Endless or one-pass batches on the device, with what resuming needs.

    Iterating yields dicts of global `jax.Array`s. `corrupt` collects the names of skipped records.
    """

    stream: Stream
    batch_size: int
    sharding: jax.sharding.Sharding
    threads: int = 0
    workers: int = 0
    prefetch: int = 2
    corrupt: set[str] = field(default_factory=set)

    @property
    def batches_per_epoch(self) -> int:
        """Full batches in training, all batches (the last one padded) in evaluation."""
        count = self.stream.order.count
        return -(-count // self.batch_size) if self.stream.padding else count // self.batch_size

    def batches(self, start: int = 0, stop: int | None = None) -> Generator[dict[str, jax.Array]]:
        """Batches number `start` (0 = the first of the first epoch) up to `stop`."""
        stop = self.batches_per_epoch if stop is None else stop
        share = Share(self.batch_size, jax.process_index(), jax.process_count())
        host = host_batches(
            self.stream, share, start, stop, threads=self.threads, workers=self.workers
        )
        return self._ahead(self._on_device(host))

    def _on_device(self, host: Generator[Batch]) -> Generator[dict[str, jax.Array]]:
        with closing(host):
            for batch in host:
                yield self._to_device(batch)

    def _to_device(self, batch: Batch) -> dict[str, jax.Array]:
        for index in batch.pop(_CORRUPT):
            if index >= 0:
                self.corrupt.add(self.stream.source.name(int(index)))
        for key in _HOST_ONLY:
            batch.pop(key, None)
        if jax.process_count() == 1:
            return jax.device_put(batch, self.sharding)
        return {
            key: jax.make_array_from_process_local_data(self.sharding, value)
            for key, value in batch.items()
        }

    def _ahead(self, batches: Generator[dict[str, jax.Array]]) -> Generator[dict[str, jax.Array]]:
        """Prepares `prefetch` batches in a thread, so that transfers overlap with computing."""
        if self.prefetch < 1:
            yield from batches
            return
        with closing(batches), ThreadPoolExecutor(1, thread_name_prefix="to-device") as thread:
            waiting = [thread.submit(next, batches, None) for _ in range(self.prefetch)]
            try:
                while (batch := waiting.pop(0).result()) is not None:
                    waiting.append(thread.submit(next, batches, None))
                    yield batch
            finally:
                for future in waiting:
                    future.cancel()


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


def open_stream(
    data: ConfigDict,
    spec: str,
    *,
    seed: int,
    train: bool,
    annotations: tuple[str, ...] = ("label", "segmentation"),
) -> Stream:
    """The stream of one split of the configured data.

    Args:
      data: the `data` group of a configuration, its classes known.
      spec: which split.
      seed: decides the order and the random transforms.
      annotations: what of the records is kept beside the image, as the task needs it.
      train: shuffled and endless with the training transforms, or in order with the others.

    Raises:
      UserError: whatever is wrong with the data or the transforms.
    """
    source = open_split(data, spec)
    classes = len(data.classes) or len(source.class_names)
    values = tuple(data.mask_values)
    if values and len(values) != classes:
        raise UserError(f"data.mask_values has {len(values)} values for {classes} classes.")
    decoder = Decode(data.channels, classes, tuple(data.void), annotations, values)
    decode: Callable[..., dict[str, Any]] = decoder
    annotate: Callable[..., dict[str, Any]] = decoder.annotations_of
    if data.cache or (isinstance(source, Selection) and isinstance(source.source, Arrays)):
        source = in_memory(source, decoder, data.on_corrupt)
        decode = annotate = _as_decoded
    steps = data.train_transforms if train else data.eval_transforms
    transforms.compose(steps)  # unknown names are met here, not in a thread
    if not train and transforms.is_random(steps):
        raise UserError("data.eval_transforms are random; evaluation must be deterministic.")
    shares = None
    if train and data.balance:
        shares = balance.shares(balance.presence(source, annotate, classes), data.balance)
    order = Order(len(source), seed, train, shares)
    return Stream(source, order, decode, tuple(steps), data.on_corrupt, padding=not train)
