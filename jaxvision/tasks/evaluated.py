"""What an evaluation gave, as a task's report reads it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Mistake:
    """A record on which the network is wrong, or less right than on others.

    Attributes:
      row: of the evaluation.
      caption: what is said of it.
      tags: classes by which it is found among others.
      wrong: whether it is a mistake at all.
    """

    row: int
    caption: str
    tags: tuple[str, ...] = ()
    wrong: bool = True


@dataclass(frozen=True)
class Evaluated:
    """An evaluation over a split.

    Attributes:
      split: its specification.
      step: of the checkpoint.
      metrics: by plain name.
      sums: accumulators by name.
      rows: of all records, arrays [n, ...]; {} where a task gives none.
      read: gives the records of some rows as a batch of host arrays, as the network sees them but
        for the normalisation.
      name: says what the record of a row is called.
    """

    split: str
    step: int
    metrics: Mapping[str, float]
    sums: Mapping[str, Any]
    rows: Mapping[str, np.ndarray]
    read: Callable[[Sequence[int]], Mapping[str, np.ndarray]]
    name: Callable[[int], str]
