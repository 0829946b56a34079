"""Batches on the device: a pure function of (seed, batch number), fed by Grain.

`Stream` says which record stands at which position and prepares it; it holds no state, so batch k
is the same whatever the number of threads, worker processes or hosts, and resuming is starting
at k. Grain runs it in threads or processes ahead of the training.
"""

import os
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field

import jax
import numpy as np

from jaxvision.data.batches import Batch, Filling
from jaxvision.data.stream import CORRUPT, LEFT_OUT, Stream, open_stream
from jaxvision.errors import UserError

__all__ = ["Loader", "Share", "Stream", "host_batches", "open_stream"]

_CHUNK = 32  # records that a reading thread prepares at a time


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
        """The rows of a batch that this process feeds."""
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
            self.filling.put(number, row, self.stream[positions[row]], self.stream.name)
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

    Iterating yields dicts of global `jax.Array`s. `corrupt` collects the names of skipped records,
    `left_out` by name and split how many objects of a record were more than `data.max_instances`.
    """

    stream: Stream
    batch_size: int
    sharding: jax.sharding.Sharding
    threads: int = 0
    workers: int = 0
    prefetch: int = 2
    corrupt: set[str] = field(default_factory=set)
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def batches_per_epoch(self) -> int:
        """Full batches in training, all batches (the last one padded) in evaluation."""
        length = self.stream.order.length
        return -(-length // self.batch_size) if self.stream.padding else length // self.batch_size

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
        for index in batch.pop(CORRUPT):
            if index >= 0:
                self.corrupt.add(self.stream.source.name(int(index)))
        left_out = batch.pop(LEFT_OUT)
        for row in np.flatnonzero(left_out):
            # Of TFDS records of several splits have one name.
            name = f"{self.stream.source.name(int(batch['image_id'][row]))} of {self.stream.spec!r}"
            self.left_out[name] = max(self.left_out.get(name, 0), int(left_out[row]))
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
