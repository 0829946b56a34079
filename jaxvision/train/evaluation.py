"""Exact evaluation over a split: padded batches, sums on the device, rows on the host."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from jaxvision import metrics
from jaxvision.tasks.base import Sums, Task
from jaxvision.train import compilation
from jaxvision.train.step import EVALUATION, stream

_RECORD = "record"  # of a row: the index of its record
_FOLD_EVERY = 64  # batches summed on the device before 64-bit sums on the host, ...
_FOLD_ABOVE = 2**30  # ... or fewer, of so many elements that counts might overflow 32 bits


class Evaluator:
    """Evaluates a task; compiled once for each shape of batches.

    Args:
      task: whose `evaluate` and `score` are meant.
      seed: of the random numbers that an evaluation may need; batch k has the k-th key.

    Attributes:
      rows: of all records of the last evaluation.
      records: indices of these records in their split, int [n]; None where a task gives no rows.
    """

    def __init__(self, task: Task, seed: int):
        self.task = task
        self.rows: dict[str, np.ndarray] = {}
        self.records: np.ndarray | None = None
        key = stream(seed, EVALUATION)

        def step(variables: Any, batch: Any, number: Any) -> tuple[Sums, dict[str, Any]]:
            sums, rows = task.evaluate(variables, batch, jax.random.fold_in(key, number))
            if rows:
                rows = {**rows, "valid": batch["valid"], _RECORD: batch["image_id"]}
            return sums, rows

        self.step = jax.jit(step, compiler_options=compilation.compiler_options())

    def names(self, variables: Any, batch: Any) -> set[str]:
        """The metrics that an evaluation gives, from shapes alone."""
        shapes, rows = self.step.eval_shape(variables, batch, 0)
        zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
        found = set(metrics.compute(zeros))
        if rows:
            found |= set(self.task.scores())
        return found

    def __call__(
        self,
        variables: Any,
        batches: Iterator[dict[str, jax.Array]],
        cancelled: Callable[[], bool] = lambda: False,
    ) -> tuple[dict[str, float], Sums] | None:
        """(metrics by name, sums) over all batches, or None if cancelled midway."""
        total: Any = None
        pending: Any = None
        count, elements = 0, 0  # since the last fold
        kept: list[dict[str, np.ndarray]] = []
        late: dict[str, Any] = {}  # rows are fetched when the next batch has been dispatched
        for number, batch in enumerate(batches):
            if cancelled():
                return None
            new, rows = self.step(variables, batch, number)
            if late:
                kept.append(_on_host(late))
            late = rows
            pending = new if pending is None else _add(pending, new)
            count, elements = count + 1, elements + max((v.size for v in batch.values()), default=0)
            if count == _FOLD_EVERY or elements >= _FOLD_ABOVE:
                total, pending, count, elements = _fold(total, pending), None, 0, 0
        if late:
            kept.append(_on_host(late))
        sums = _fold(total, pending) if pending is not None else total or {}
        result = metrics.compute(sums)
        self.rows, self.records = {}, None
        if kept:
            self.records, self.rows = _in_order(kept)
            result |= self.task.score(self.rows)
        return result, sums


_add = jax.jit(metrics.add)


def _in_order(
    parts: Sequence[dict[str, np.ndarray]],
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(records, their rows) of all batches, in the order of the records, whichever batches these
    were in."""
    records = np.concatenate([part.pop(_RECORD) for part in parts])
    rows = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    if np.all(records[1:] > records[:-1]):
        return records, rows
    order = np.argsort(records)
    return records[order], {key: value[order] for key, value in rows.items()}


def _on_host(rows: dict[str, jax.Array]) -> dict[str, np.ndarray]:
    """The rows of records, of all processes."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        rows = multihost_utils.process_allgather(rows, tiled=True)
    host = jax.device_get(rows)
    valid = host.pop("valid")
    return {key: value[valid] for key, value in host.items()}


def _fold(total: Any, pending: Any) -> Any:
    def widen(leaf: Any) -> np.ndarray:
        host = np.asarray(leaf)
        return host.astype(np.int64 if host.dtype.kind == "i" else np.float64)

    wide = jax.tree.map(widen, jax.device_get(pending))
    return wide if total is None else metrics.add(total, wide)
