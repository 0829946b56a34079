"""What a run prints: a header, a progress bar (plain lines without a terminal), results."""

import time
from collections.abc import Mapping
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_FIRST = ("loss", "accuracy", "top5_accuracy", "miou", "pixel_accuracy", "mean_class_accuracy")


def format_metrics(metrics: Mapping[str, float], everything: bool = False) -> str:
    """`"loss 0.123  accuracy 0.987"`; per-class values only with `everything`."""
    names = [n for n in _FIRST if n in metrics]
    names += [n for n in metrics if n not in names and (everything or "/" not in n)]
    return "  ".join(f"{name} {metrics[name]:.4g}" for name in names)


class RunConsole:
    """Printing of one run; silent on processes other than the first."""

    def __init__(self, total: int, start: int, active: bool = True):
        self._console = Console(quiet=not active, highlight=False)
        self._total = total
        self._bar: Progress | None = None
        self._task: Any = None
        self._start, self._began = start, time.monotonic()
        if active and self._console.is_terminal:
            self._bar = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[metrics]}"),
                TimeElapsedColumn(),
                TextColumn("ETA"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task("train", total=total, completed=start, metrics="")

    def say(self, text: str) -> None:
        """One line, above the bar."""
        self._console.print(text, soft_wrap=True, markup=False)

    def __enter__(self) -> Self:
        """Starts the bar (after everything slow has been set up)."""
        self._began = time.monotonic()
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *raised: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def progress(self, step: int, metrics: Mapping[str, float]) -> None:
        """Moves the bar; without a terminal, a line."""
        text = format_metrics({k: v for k, v in metrics.items() if k != "gradient_norm"})
        if self._bar is not None:
            self._bar.update(self._task, completed=step, metrics=text)
            return
        done = max(1, step - self._start)
        left = (time.monotonic() - self._began) / done * (self._total - step)
        self.say(f"step {step}/{self._total}  {text}  ETA {int(left) // 60}:{int(left) % 60:02d}")
