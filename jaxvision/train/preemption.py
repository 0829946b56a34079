"""SIGTERM asks a run to save and end, on one process or on many at the same step."""

import signal
import threading
from types import TracebackType
from typing import Any, Self

import jax


class Preemption:
    """While active, remembers SIGTERM instead of dying of it."""

    def __init__(self):
        self._asked = threading.Event()
        self._caught = False
        self._previous: Any = None

    def __enter__(self) -> Self:
        # With many processes JAX's own service catches the signal and agrees on a step.
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, lambda *_: self._asked.set())
            self._caught = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._caught:  # None: the handler before was not Python's, which cannot be put back
            signal.signal(signal.SIGTERM, self._previous or signal.SIG_DFL)

    def asked(self, step: int) -> bool:
        """Whether to stop after `step`; the same answer on every process."""
        if jax.process_count() > 1:
            from jax.experimental import multihost_utils

            return bool(multihost_utils.reached_preemption_sync_point(step))
        return self._asked.is_set()

    def asked_here(self) -> bool:
        """Whether to stop amid an evaluation; never with several processes, which stop together."""
        return self._asked.is_set()
