"""Batches on the host: records side by side, in memory that devices on CPUs take over as it is."""

import math
import threading
from collections.abc import Callable, Mapping, Sequence
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


def allocate(record: Record, rows: int) -> Batch:
    """A batch for as many records like this one; its contents are arbitrary."""
    arrays = {key: np.asarray(value) for key, value in record.items()}
    return {key: empty((rows, *array.shape), array.dtype) for key, array in arrays.items()}


def by_number(record: Record) -> str:
    """The name of a record of which no more is known than its place in the data."""
    return f"record {record.get('image_id', '?')}"


def put(batch: Batch, row: int, record: Record, name: Callable[[Record], str] = by_number) -> None:
    """Copies a record to a row.

    Args:
      batch: made for records of the same keys, shapes and types.
      row: which one.
      record: arrays, or NumPy's numbers, by key.
      name: names the record in errors.

    Raises:
      UserError: it has other keys, or under a key another shape or type: nothing is broadcast.
    """
    if record.keys() != batch.keys():
        key = sorted(record.keys() ^ batch.keys())[0]
        others = "the others of its batch do not" if key in record else "it does not"
        here = "has" if key in record else "should have"
        raise UserError(f"{name(record)} {here} {key!r}, as the first of its batch; {others}.")
    for key, rows in batch.items():
        value = record[key]
        if value.shape != rows.shape[1:] or value.dtype != rows.dtype:
            raise _misfit(key, rows, value, name(record))
        rows[row] = value


def _misfit(key: str, rows: np.ndarray, value: np.ndarray, name: str) -> UserError:
    have, want = value.shape, rows.shape[1:]
    if key == "image" and len(have) == len(want) == 3 and have[:2] != want[:2]:
        return UserError(
            f"Images of one batch differ in size ({want[1]}x{want[0]} and {have[1]}x{have[0]}); "
            f"{name} is one. Bring them to one shape with data.train_transforms / "
            "data.eval_transforms, e.g. [{'name': 'resize', 'size': 64}]."
        )
    return UserError(
        f"{name}: {key} is {value.dtype} {list(have)}; others of its batch are {rows.dtype} "
        f"{list(want)}."
    )


def stack(records: Sequence[Record], name: Callable[[Record], str] = by_number) -> Batch:
    """Records to one batch.

    Raises:
      UserError: they differ, see `put`.
    """
    batch = allocate(records[0], len(records))
    for row, record in enumerate(records):
        put(batch, row, record, name)
    return batch


class Filling:
    """Batches that threads fill together, row by row."""

    def __init__(self, rows: int):
        """`rows`: of a batch."""
        self._rows = rows
        self._batches: dict[int, Batch] = {}
        self._lock = threading.Lock()

    def put(
        self, number: int, row: int, record: Record, name: Callable[[Record], str] = by_number
    ) -> None:
        """Copies a record to a row of batch `number`.

        Raises:
          UserError: it differs from others of the batch, see `put`.
        """
        with self._lock:
            batch = self._batches.get(number)
            if batch is None:
                batch = self._batches[number] = allocate(record, self._rows)
        put(batch, row, record, name)

    def take(self, number: int) -> Batch:
        """The batch, which is full."""
        with self._lock:
            return self._batches.pop(number)
