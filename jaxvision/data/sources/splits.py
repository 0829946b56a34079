"""Splits as TFDS writes them, of any source: `train[:90%]`, `train[1000:2000]`, `train+extra`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np

from jaxvision.data.facts import Facts, facts_of
from jaxvision.errors import UserError


class Source(Protocol):
    """Random access over encoded records.

    A source may also have `facts` (`jaxvision.data.facts.Facts`): what it says of its key points,
    `image_id(index)`: what its data set calls an image, `image_file(index)`: the file of an image,
    and `captions()`: those of every record, where images need not be read for them.
    """

    @property
    def class_names(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...

    def name(self, index: int) -> str: ...


@dataclass(frozen=True)
class Selection:
    """Some records of a source, in a given order."""

    source: Source
    indices: np.ndarray

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.source.class_names

    @property
    def facts(self) -> Facts:
        return facts_of(self.source)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.source[int(self.indices[index])]

    def name(self, index: int) -> str:
        return self.source.name(int(self.indices[index]))

    def image_id(self, index: int) -> Any:
        return image_id(self.source, int(self.indices[index]))

    def image_file(self, index: int) -> Path | None:
        return image_file(self.source, int(self.indices[index]))


def image_id(source: Source, index: int) -> Any:
    """What the data set calls the image of a record, COCO's id for one; else the record's index."""
    known = getattr(source, "image_id", None)
    return index if known is None else known(index)


def image_file(source: Source, index: int) -> Path | None:
    """The file of a record's image; None where the source has no files."""
    known = getattr(source, "image_file", None)
    return None if known is None else known(index)


def labels_of(source: Source) -> np.ndarray | None:
    """The class index of every record, int [n]; None where records would have to be read for it."""
    if isinstance(source, _Joined):
        parts = [labels_of(part) for part in source.parts]
        found = [labels for labels in parts if labels is not None]
        return np.concatenate(found) if len(found) == len(parts) else None
    if isinstance(source, Selection):
        labels = labels_of(source.source)
        return None if labels is None else labels[np.asarray(source.indices)]
    labels = getattr(source, "labels", None)
    return None if labels is None or not len(labels) else np.asarray(labels, np.int64)


def captions_of(source: Any) -> Sequence[Sequence[str]] | None:
    """The captions of every record; None where records would have to be read for them."""
    if isinstance(source, _Joined):
        parts = [captions_of(part) for part in source.parts]
        found = [captions for captions in parts if captions is not None]
        return [one for part in found for one in part] if len(found) == len(parts) else None
    if isinstance(source, Selection):
        captions = captions_of(source.source)
        return None if captions is None else [captions[int(index)] for index in source.indices]
    known = getattr(source, "captions", None)
    return None if known is None else known()


def base_splits(spec: str) -> list[str]:
    """Names of the whole splits that a spec like `"train[:90%]+extra"` draws from."""
    return [part.split("[")[0].strip() for part in spec.split("+")]


def cut(spec: str, load: Callable[[str], Source]) -> Source:
    """The records of a split spec, written as TFDS writes it.

    Args:
      spec: `"train"`, `"train[:90%]"`, `"test[100:200]"`, `"train[10%:]+extra"`, ...
      load: gives a whole split by name.

    Raises:
      UserError: the spec cannot be parsed, or it selects no record.
    """
    import tensorflow_datasets as tfds

    try:
        tfds.core.ReadInstruction.from_spec(spec)
    except (ValueError, AssertionError) as error:
        raise _unreadable(spec, error) from error
    wholes = {name: load(name) for name in dict.fromkeys(base_splits(spec))}
    sizes = {name: SimpleNamespace(num_examples=len(whole)) for name, whole in wholes.items()}
    try:
        parts = tfds.core.ReadInstruction.from_spec(spec).to_absolute(sizes)
    except (ValueError, AssertionError, AttributeError, RecursionError) as error:  # shards; all
        raise _unreadable(spec, error) from error
    selections = []
    for part in parts:
        whole = wholes[part.splitname]
        stop = len(whole) if part.to is None else part.to
        selections.append(Selection(whole, np.arange(part.from_ or 0, stop)))
    chosen = selections[0] if len(selections) == 1 else _concatenate(selections)
    if len(chosen) == 0:
        have = ", ".join(f"{name} has {len(whole)}" for name, whole in wholes.items())
        raise UserError(f"Split {spec!r} selects no record ({have}).")
    return chosen


def _unreadable(spec: str, error: Exception) -> UserError:
    return UserError(
        f"Cannot read split {spec!r}. Write it as train, train[:90%], train[1000:2000] "
        f"or train[:50%]+test. ({error})"
    )


@dataclass(frozen=True)
class _Joined:
    """Selections one after another."""

    parts: Sequence[Selection]
    starts: np.ndarray

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.parts[0].class_names

    @property
    def facts(self) -> Facts:
        return self.parts[0].facts

    def __len__(self) -> int:
        return int(self.starts[-1])

    def _locate(self, index: int) -> tuple[Selection, int]:
        part = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.parts[part], index - int(self.starts[part])

    def __getitem__(self, index: int) -> dict[str, Any]:
        part, offset = self._locate(index)
        return part[offset]

    def name(self, index: int) -> str:
        part, offset = self._locate(index)
        return part.name(offset)

    def image_id(self, index: int) -> Any:
        part, offset = self._locate(index)
        return part.image_id(offset)

    def image_file(self, index: int) -> Path | None:
        part, offset = self._locate(index)
        return part.image_file(offset)


def _concatenate(selections: Sequence[Selection]) -> _Joined:
    return _Joined(selections, np.cumsum([0] + [len(s) for s in selections]))
