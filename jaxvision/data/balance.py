"""Class-balanced sampling: records of rare classes come more often.

Gupta et al., LVIS: A Dataset for Large Vocabulary Instance Segmentation, 2019,
https://arxiv.org/abs/1908.03195, section B.2: a class that a share f < t of the records has is
repeated sqrt(t / f) times, a record as often as its rarest class.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from jaxvision.data.annotations import Kind
from jaxvision.data.codecs import CorruptImageError
from jaxvision.data.sources import Source
from jaxvision.errors import UserError


def presence(
    source: Source,
    annotate: Callable[[Mapping[str, Any], str], dict[str, Any]],
    kinds: Sequence[Kind],
    num_classes: int,
) -> np.ndarray:
    """bool [records, classes]: which classes are in which record; none in unreadable ones.

    Args:
      source: the records.
      annotate: gives the annotations of a record, by its name.
      kinds: of these annotations; the first one that names classes counts.
      num_classes: how many there are.

    Raises:
      UserError: the annotations of the records name no classes.
    """

    def of_record(index: int) -> np.ndarray:
        found = np.zeros(num_classes, bool)
        try:
            record = annotate(source[index], source.name(index))
        except CorruptImageError:
            return found
        named = (kind.classes(record) for kind in kinds if kind.present(record))
        there = next((classes for classes in named if classes is not None), None)
        if there is None:
            raise UserError("data.balance needs records with labels, masks or boxes.")
        found[there[there < num_classes]] = True
        return found

    with ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as pool:
        return np.stack(list(pool.map(of_record, range(len(source)))))


def shares(present: np.ndarray, threshold: float) -> np.ndarray:
    """How often each record is to come, relative to the others; they sum to one.

    Args:
      present: see `presence`.
      threshold: classes in fewer than this share of the records come more often.
    """
    frequency = present.mean(0)
    repeat = np.sqrt(threshold / np.maximum(frequency, 1 / len(present)))
    factors = np.where(present, np.maximum(repeat, 1), 1).max(1, initial=1)
    return factors / factors.sum()


def draw(share: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As many records as there are, by their shares: each as often as its share says, +- 1."""
    places = (np.arange(len(share)) + rng.random()) / len(share)
    chosen = np.searchsorted(np.cumsum(share) / share.sum(), places, side="right")
    return rng.permutation(np.minimum(chosen, len(share) - 1))
