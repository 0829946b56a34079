"""What a run prints: a header, a progress bar (plain lines without a terminal), results."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from jaxvision import progress


def format_metrics(
    metrics: Mapping[str, float], first: Sequence[str] = (), everything: bool = False
) -> str:
    """`"loss 0.123  accuracy 0.987"`; per-class values (`iou/car`) only with `everything`.

    Args:
      metrics: by name.
      first: names that are shown before the others, in this order.
      everything: per-class values too.
    """
    names = [n for n in first if n in metrics]
    names += [n for n in metrics if n not in names and (everything or "/" not in n)]
    return "  ".join(f"{name} {_number(metrics[name])}" for name in names)


def _number(value: float) -> str:
    return f"{value:.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"


class RunConsole:
    """Printing of one run; silent on processes other than the first.

    Args:
      total: steps of the training.
      start: step at which it starts.
      first: names of metrics, the most important first.
      active: whether this process prints.
    """

    def __init__(self, total: int, start: int, first: Sequence[str] = (), active: bool = True):
        self._first = first
        self._console = Console(quiet=not active, highlight=False)
        self._total = total
        self._bar: Progress | None = None
        self._task: Any = None
        self._start, self._began = start, time.monotonic()
        if active and self._console.is_terminal:
            # All of it fits into 80 columns; what does not, is cut in the middle, not the ETA.
            metrics = Column(ratio=1, no_wrap=True, overflow="ellipsis")
            self._bar = Progress(
                BarColumn(bar_width=10),
                MofNCompleteColumn(),
                TextColumn("{task.fields[metrics]}", table_column=metrics),
                TextColumn("ETA"),
                TimeRemainingColumn(),
                console=self._console,
                expand=True,
                speed_estimate_period=600,  # s; records may be minutes apart
            )

    def say(self, text: str) -> None:
        """One line, above the bar."""
        self._console.print(text, soft_wrap=True, markup=False)

    def __enter__(self) -> Self:
        """Starts the bar (after everything slow has been set up)."""
        self._began = time.monotonic()
        if self._bar is not None:
            self._task = self._bar.add_task(
                "train", total=self._total, completed=self._start, metrics=""
            )
            self._bar.start()
        return self

    def __exit__(self, *raised: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Says what takes its time, and how long it has taken so far; without a terminal, once."""
        if not self._console.is_terminal:
            self.say(f"{what} ...")
        with progress.waiting(what, self._console):
            yield

    def step(self, step: int) -> None:
        """Moves the bar."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def progress(self, step: int, metrics: Mapping[str, float]) -> None:
        """Shows metrics beside the bar; without a terminal, in a line."""
        if self._bar is not None:
            brief = {k: v for k, v in metrics.items() if k in self._first}
            speed = metrics.get("images_per_second", 0)
            text = f"{format_metrics(brief, self._first)}  {speed:.0f} images/s"
            self._bar.update(self._task, metrics=text)
            return
        shown = {k: v for k, v in metrics.items() if not k.startswith("gradient_norm")}
        text = format_metrics(shown, self._first)
        done = max(1, step - self._start)
        left = (time.monotonic() - self._began) / done * (self._total - step)
        self.say(f"step {step}/{self._total}  {text}  ETA {int(left) // 60}:{int(left) % 60:02d}")
