"""Batches on the device: a pure function of (seed, batch number), fed by Grain.

`Stream` says which record stands at which position and prepares it; it holds no state, so batch k
is the same whatever the number of threads, worker processes or hosts, and resuming is starting
at k. Grain runs it in threads or processes ahead of the training.
"""

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxvision.data import balance, transforms
from jaxvision.data.batches import Batch, Filling, stack
from jaxvision.data.codecs import CorruptImageError
from jaxvision.data.decode import Decode, as_decoded, in_memory
from jaxvision.data.order import Order, record_generator
from jaxvision.data.sources import Arrays, Selection, Source, open_split
from jaxvision.errors import UserError

_CORRUPT = "corrupt"  # record index of a replaced record, -1 elsewhere; never leaves the loader
_HOST_ONLY = ("image_size",)
_CHUNK = 32  # records that a reading thread prepares at a time


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
        decode = annotate = as_decoded
    steps = data.train_transforms if train else data.eval_transforms
    transforms.compose(steps)  # unknown names are met here, not in a thread
    if not train and transforms.is_random(steps):
        raise UserError("data.eval_transforms are random; evaluation must be deterministic.")
    shares = None
    if train and data.balance:
        shares = balance.shares(balance.presence(source, annotate, classes), data.balance)
    order = Order(len(source), seed, train, shares)
    return Stream(source, order, decode, tuple(steps), data.on_corrupt, padding=not train)
