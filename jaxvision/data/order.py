"""The order of training: a pure function of (seed, position), and each record's random numbers."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from jaxvision.data import balance, grouping
from jaxvision.data.grouping import NOTHING, Grouping


@dataclass(frozen=True, eq=False)
class Order:
    """Which record stands at which position of the endless training sequence.

    Every epoch is a permutation of its own of all records, or as many drawn by their shares;
    unshuffled, epochs follow one another.

    Attributes:
      shares: how often each record comes, relative to the others; None: once an epoch.
      grouping: of records whose batches have shapes of their own; None where all have one. What is
        unshuffled is then padded to whole batches of one bucket each.
    """

    count: int
    seed: int = 0
    shuffle: bool = True
    shares: np.ndarray | None = None
    grouping: Grouping | None = None

    def __call__(self, position: int) -> tuple[int, int]:
        """(epoch, record index) at `position`; `NOTHING` in place of an index where it is empty."""
        epoch, offset = divmod(position, self.length)
        if not self.shuffle and self.grouping is None:
            return epoch, offset
        return epoch, int(_of_epoch(self, epoch)[offset])

    def indices(self, positions: Sequence[int]) -> np.ndarray:
        """Record indices at `positions`."""
        epochs, offsets = np.divmod(np.asarray(positions), self.length)
        if not self.shuffle and self.grouping is None:
            return offsets
        found = np.empty_like(offsets)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            found[here] = _of_epoch(self, int(epoch))[offsets[here]]
        return found

    @cached_property
    def length(self) -> int:
        """Positions of an epoch: as many as records, and those that are empty."""
        if self.shuffle or self.grouping is None:
            return self.count
        return len(grouping.padded(self.grouping))

    def held(self) -> Iterator[int]:
        """The positions of the first epoch at which records stand."""
        return (position for position in range(self.length) if self(position)[1] != NOTHING)

    def bucket(self, position: int) -> int:
        """The place, among the buckets, of the shape of the batch that a position is in."""
        assert self.grouping is not None
        return _bucket(self, position // self.grouping.batch_size)


@lru_cache(maxsize=4)
def _of_epoch(order: Order, epoch: int) -> np.ndarray:
    if not order.shuffle:
        assert order.grouping is not None
        return grouping.padded(order.grouping)
    rng = np.random.default_rng((order.seed, epoch, 0, 1))
    if order.shares is None:
        drawn = rng.permutation(order.count)
    else:
        drawn = balance.draw(order.shares, rng)
    if order.grouping is None:
        return drawn
    return grouping.arranged(drawn, order.grouping, epoch, rng)


@lru_cache(maxsize=256)
def _bucket(order: Order, batch: int) -> int:
    assert order.grouping is not None
    size = order.grouping.batch_size
    indices = order.indices(range(batch * size, (batch + 1) * size))
    return order.grouping.buckets.together(order.grouping.places[indices[indices != NOTHING]])


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
