"""Progress of what takes long, on terminals and in notebooks; elsewhere nothing moves."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, track

Item = TypeVar("Item")


def _on_screen(console: Console) -> bool:
    return (console.is_terminal or console.is_jupyter) and not console.quiet


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
