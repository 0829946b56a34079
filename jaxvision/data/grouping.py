"""Records grouped so that those of a batch have one bucket: pure functions of the epoch's draw."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from jaxvision.data.buckets import Buckets

NOTHING = -1  # in place of a record's index where a row of a batch is empty


@dataclass(frozen=True, eq=False)
class Grouping:
    """The bucket of every record.

    Attributes:
      buckets: the shapes.
      places: of each record's bucket among them.
      batch_size: records of a batch, of all processes together.
    """

    buckets: Buckets
    places: Int[np.ndarray, " n"]
    batch_size: int

    def describe(self, mixed: bool) -> str:
        """`"800x1344 (61), 1344x800 (39), 1344x1344 (mixed)"`: height, width, records.

        Args:
          mixed: whether there may be batches of several buckets.
        """
        counts = np.bincount(self.places, minlength=len(self.buckets.shapes))
        held = [str(count) if count else "" for count in counts]
        held[self.buckets.listed :] = ["mixed"] * (mixed and len(held) - self.buckets.listed)
        return ", ".join(
            f"{height}x{width} ({what})"
            for (height, width), what in zip(self.buckets.shapes, held)
            if what
        )


def arranged(
    drawn: Int[np.ndarray, " n"], grouping: Grouping, epoch: int, rng: np.random.Generator
) -> Int[np.ndarray, " n"]:
    """An epoch's records in an order whose batches have one bucket, as far as that can be.

    What does not fill a batch of its bucket is mixed, by the proportions of its bucket, so that few
    batches hold wide and tall images; from the tall ones on in every second epoch, whose first
    batch is the last one of the epoch before. Whole batches are in random order.

    Args:
      drawn: indices of records, in random order.
      epoch: its number; the ones before were as long.
      rng: shuffles.
    """
    size, places = grouping.batch_size, grouping.places[drawn]
    whole: list[np.ndarray] = []
    rest: list[np.ndarray] = []
    for place in np.unique(places):
        here = drawn[places == place]
        full = len(here) // size * size
        whole += list(here[:full].reshape(-1, size))
        rest.append(here[full:])
    first = -epoch * len(drawn) % size
    last = (len(drawn) - first) % size
    mixed = np.concatenate(rest)
    if len(mixed) < first + last:
        mixed = np.concatenate([mixed, whole.pop(int(rng.integers(len(whole))))])
    tallness = np.array([height / width for height, width in grouping.buckets.shapes])
    mixed = mixed[np.argsort(tallness[grouping.places[mixed]], kind="stable")]
    mixed = mixed[::-1] if epoch % 2 else mixed
    end = len(mixed) - last
    batches = [*whole, *mixed[first:end].reshape(-1, size)]
    shuffled = [batches[number] for number in rng.permutation(len(batches))]
    return np.concatenate([mixed[:first], *shuffled, mixed[end:]])


def padded(grouping: Grouping) -> Int[np.ndarray, " m"]:
    """All records, bucket after bucket in their order, each filled up to whole batches."""
    parts: list[Sequence[int] | np.ndarray] = []
    for place in np.unique(grouping.places):
        here = np.flatnonzero(grouping.places == place)
        parts += [here, np.full(-len(here) % grouping.batch_size, NOTHING)]
    return np.concatenate(parts)
