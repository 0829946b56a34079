"""The order of training: a pure function of (seed, position), and each record's random numbers."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from jaxvision.data import balance


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
