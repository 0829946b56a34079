"""Named parts: networks, tasks, sources, transforms, losses, optimisers, schedules.

Each kind of part has one `Registry`, beside the code that uses it. What stands in this project is
entered there; a package or file of a user's own adds to it by the decorator `register`, and a
configuration names it in `plugins`.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from jaxvision.errors import UserError, unknown

Entry = TypeVar("Entry")
Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class Registry(Mapping[str, Entry]):
    """A mapping of names that answers an unknown one with its neighbours.

    Args:
      kind: what a name stands for, as in "model" or "host transform"; named in errors.
      entries: what the project itself has.
      definition: the function or class that an entry describes: entries of one are the same entry.
    """

    def __init__(
        self,
        kind: str,
        entries: Mapping[str, Entry] = {},
        definition: Callable[[Entry], Any] = lambda entry: entry,
    ):
        self.kind = kind
        self._definition = definition
        self._entries: dict[str, Entry] = dict(entries)

    def __getitem__(self, name: str) -> Entry:
        if name not in self._entries:
            raise unknown(self.kind, name, self._entries)
        return self._entries[name]

    def __contains__(self, name: object) -> bool:  # Mapping's would ask for a KeyError
        return name in self._entries

    def get(self, name: str, default: Any = None) -> Any:
        return self._entries.get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, name: str, entry: Entry) -> None:
        """Enters a part.

        Raises:
          UserError: another one has the name. (The same one, imported again, replaces itself.)
        """
        old = self._entries.get(name)
        if old is not None and self._origin(old) != self._origin(entry):
            raise UserError(f"There is a {self.kind} {name!r} already; choose another name.")
        self._entries[name] = entry

    def register(self, name: str) -> Callable[[Decorated], Decorated]:
        """A decorator that enters the function or class below it as `name`."""

        def enter(part: Decorated) -> Decorated:
            self.add(name, part)  # type: ignore[arg-type]
            return part

        return enter

    def _origin(self, entry: Entry) -> tuple[str, str]:
        part = self._definition(entry)
        kind = part if hasattr(part, "__qualname__") else type(part)
        return kind.__module__, kind.__qualname__


def located(place: str) -> Any:
    """The class or function at `MODULE:NAME`, for registries whose parts are imported when used."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
