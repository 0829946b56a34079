"""Batches on the host: records side by side, in memory that devices on CPUs take over as it is."""

import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxvision.errors import UserError

Batch = dict[str, np.ndarray]
Record = Mapping[str, Any]

_ALIGNMENT = 64  # bytes; other memory JAX copies, which takes as long as a tenth of decoding


def empty(shape: Sequence[int], dtype: Any) -> np.ndarray:
    """As `np.empty`, at an address that JAX's CPU devices need no copy of."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def room(record: Record, rows: int) -> Batch:
    """A batch for as many records like this one; its contents are arbitrary."""
    arrays = {key: np.asarray(value) for key, value in record.items()}
    return {key: empty((rows, *array.shape), array.dtype) for key, array in arrays.items()}


def put(batch: Batch, row: int, record: Record) -> None:
    """Copies a record to a row.

    Raises:
      UserError: its image has another size, because no transform brings them to a fixed shape.
    """
    image, expected = record["image"].shape, batch["image"].shape[1:]
    if image != expected:
        raise UserError(
            f"Images of one batch differ in size ({expected[1]}x{expected[0]} and "
            f"{image[1]}x{image[0]}). Bring them to one shape with data.train_transforms / "
            "data.eval_transforms, e.g. [{'name': 'resize', 'size': 64}]."
        )
    for key, rows in batch.items():
        rows[row] = record[key]


def stack(records: Sequence[Record]) -> Batch:
    """Records to one batch.

    Raises:
      UserError: images differ in size.
    """
    batch = room(records[0], len(records))
    for row, record in enumerate(records):
        put(batch, row, record)
    return batch


class Filling:
    """Batches that threads fill together, row by row."""

    def __init__(self, rows: int):
        """`rows`: of a batch."""
        self._rows = rows
        self._batches: dict[int, Batch] = {}
        self._lock = threading.Lock()

    def put(self, number: int, row: int, record: Record) -> None:
        """Copies a record to a row of batch `number`.

        Raises:
          UserError: its image differs in size from others of the batch.
        """
        with self._lock:
            batch = self._batches.get(number)
            if batch is None:
                batch = self._batches[number] = room(record, self._rows)
        put(batch, row, record)

    def take(self, number: int) -> Batch:
        """The batch, which is full."""
        with self._lock:
            return self._batches.pop(number)
