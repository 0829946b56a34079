"""What a run says of its steps: records of metrics, fetched late, and profiler traces."""

import contextlib
import functools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxvision import metrics
from jaxvision.tasks.base import Task, metric_of
from jaxvision.train.schedule import plateau_factor
from jaxvision.train.state import TrainState
from jaxvision.train.step import Group


class NotFiniteError(Exception):
    """A training metric that must be finite became NaN or infinite."""


class TrainLog:
    """Sums of the steps since the last record.

    They are fetched one step late, when the next step has been dispatched: the device never waits.
    (Before an evaluation or a checkpoint, which wait for all steps anyway, they are not late.)

    Args:
      task: says which metrics must be finite.
      groups: of parameters, whose learning rates are recorded.
      batch_size: images a step.
      every: steps between records.
      step: where the run starts.
    """

    def __init__(
        self, task: Task, groups: Mapping[str, Group], batch_size: int, every: int, step: int
    ):
        self._task, self._groups = task, groups
        self._batch_size, self._every, self._last = batch_size, every, step
        self._pending: list[tuple[int, Any]] = []
        self._since = time.perf_counter()

    def add(self, step: int, sums: Any) -> None:
        """Keeps the (not yet computed) sums of a step."""
        self._pending.append((step, sums))

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Leaves the time spent inside out of `images_per_second`; waits for all steps first."""
        self.verify()
        began = time.perf_counter()
        yield
        self._since += time.perf_counter() - began

    def _fatal(self, name: str) -> bool:
        declared = metric_of(self._task, name)
        return name.startswith("gradient_norm") or (declared is not None and declared.fatal)

    def verify(self) -> None:
        """Waits for all steps so far.

        Raises:
          NotFiniteError: one of them gave NaN or infinity for what the task declares fatal.
        """
        self._pending = jax.device_get(self._pending)
        for step, sums in self._pending:
            for name, value in metrics.compute(sums).items():
                if not math.isfinite(value) and self._fatal(name):
                    raise NotFiniteError(f"{name} is {value} at step {step}.")

    def record(self, step: int, opt_state: Any) -> dict[str, float] | None:
        """The metrics up to `step` if a record is due there.

        Raises:
          NotFiniteError: see `verify`.
        """
        if step % self._every or step <= self._last:
            return None
        newest = [entry for entry in self._pending if entry[0] > step]
        self._pending = [entry for entry in self._pending if entry[0] <= step]
        self.verify()
        total = functools.reduce(metrics.add, (sums for _, sums in self._pending))
        now = time.perf_counter()
        record = metrics.compute(total)
        for name, group in self._groups.items():
            label = "learning_rate" if len(self._groups) == 1 else f"learning_rate/{name}"
            record[label] = float(group.schedule(step - 1)) * plateau_factor(opt_state[name])
        record["images_per_second"] = (step - self._last) * self._batch_size / (now - self._since)
        self._pending, self._last, self._since = newest, step, now
        return record


class Trace:
    """A profiler trace of steps `span[0]` to `span[1]`, which TensorBoard reads; () for none."""

    def __init__(self, span: Sequence[int], folder: Path):
        self._span, self._folder, self._running = span, folder, False

    def before(self, step: int, state: TrainState) -> None:
        """Starts or ends the trace if it is time to; `state` is that before `step`."""
        if self._span and step == self._span[0]:
            jax.profiler.start_trace(str(self._folder))
            self._running = True
        elif self._running and step > self._span[1]:
            self.end(state)

    def end(self, state: TrainState) -> None:
        """Ends a running trace, once its last step has been computed."""
        if self._running:
            jax.block_until_ready(state)
            jax.profiler.stop_trace()
            self._running = False
