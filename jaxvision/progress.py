"""Progress of what takes long, on terminals and in notebooks; elsewhere nothing moves."""

import contextlib
import importlib.util
from collections.abc import Iterable, Iterator
from typing import Self, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    track,
)

Item = TypeVar("Item")


def _on_screen(console: Console) -> bool:
    widgets = console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None
    return (console.is_terminal or widgets) and not console.quiet


def tracked(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    """The items, under a bar that goes away at the end.

    Args:
      items: of any kind.
      what: is done, as in "Reading images".
      total: how many items; None if that is not known.
    """
    console = Console(stderr=True)
    if not _on_screen(console):
        yield from items
        return
    yield from track(items, what, total, console=console, transient=True)


@contextlib.contextmanager
def waiting(what: str, console: Console | None = None) -> Iterator[None]:
    """Says what takes its time, and how long it has taken so far."""
    console = console or Console(stderr=True)
    if not _on_screen(console):
        yield
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as spinner:
        spinner.add_task(what, total=None)
        yield


class Counter:
    """A bar of what is done, which says what else takes its time; without a screen, lines do.

    Args:
      what: is done, as in "Predicting".
      total: how often.
      console: standard error by default.
    """

    def __init__(self, what: str, total: int, console: Console | None = None):
        self._console = console or Console(stderr=True, highlight=False)
        columns = (
            SpinnerColumn(),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
        )
        shown = _on_screen(self._console)
        self._what = what
        self._bar = Progress(*columns, console=self._console, transient=True, disable=not shown)
        self._task = self._bar.add_task(what, total=total)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._bar.stop()

    def advance(self) -> None:
        """One more is done."""
        self._bar.advance(self._task)

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Says what takes its time, beside the bar or in a line of its own."""
        if self._bar.disable:
            self._console.print(f"{what} ...", markup=False, soft_wrap=True)
        self._bar.update(self._task, description=what)
        yield
        self._bar.update(self._task, description=self._what)
