"""SIGTERM and Ctrl-C ask a run to save and end, on one process or on many at the same step."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import jax


class Preemption:
    """While active, remembers SIGTERM and SIGINT instead of dying of them.

    A second SIGINT interrupts at once, except where something is being written.
    """

    def __init__(self):
        self._asked = threading.Event()
        self._interrupts, self._writing = 0, False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        # With many processes JAX's own service catches SIGTERM and agrees on a step.
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            self._previous = {
                signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: self._asked.set()),
                signal.SIGINT: signal.signal(signal.SIGINT, self._interrupt),
            }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, previous in self._previous.items():
            # None: the handler before was not Python's, which cannot be put back.
            signal.signal(number, previous or signal.SIG_DFL)

    def _interrupt(self, *_: Any) -> None:
        self._asked.set()
        self._interrupts += 1
        self._leave()

    def _leave(self) -> None:
        if self._interrupts > 1 and not self._writing:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """What is inside is finished before an interrupt ends the run."""
        self._writing = True
        try:
            yield
        finally:
            self._writing = False
        self._leave()

    @property
    def interrupted(self) -> bool:
        """Whether it was SIGINT that asked."""
        return self._interrupts > 0

    def asked(self, step: int) -> bool:
        """Whether to stop after `step`; the same answer on every process."""
        if jax.process_count() > 1:
            from jax.experimental import multihost_utils

            return bool(multihost_utils.reached_preemption_sync_point(step))
        return self._asked.is_set()

    def asked_here(self) -> bool:
        """Whether to stop amid an evaluation; never with several processes, which stop together."""
        return self._asked.is_set()
