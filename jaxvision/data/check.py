"""Reading whole data sets to find what is wrong with them."""

import functools
import hashlib
import operator
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxvision.data.annotations import FaultyRecord, Kind, Settings
from jaxvision.data.codecs import CorruptImageError
from jaxvision.data.decode import Decode
from jaxvision.data.sources import DataError, Source, open_split
from jaxvision.data.stream import settings_of, vocabulary_of, with_vocabulary
from jaxvision.errors import UserError
from jaxvision.metrics.captioning import words
from jaxvision.progress import tracked

UNREADABLE = "unreadable images"
WRONG = "wrong annotations"
GONE = "objects of which nothing is in their image"
TOO_MANY = "images with more objects than data.max_instances"
TWICE = "images that are there twice"
BARE = "images without any annotation"


@dataclass
class Report:
    """What was found in a split.

    Attributes:
      spec: the split.
      source: of its records; None if it cannot be opened.
      sizes: how many images there are of each size.
      classes: by name, how many objects are of each class, or images where they have no objects.
      per_image: how many objects images have, by their number.
      captions: how many captions images have, by their number.
      words: of the captions.
      cut: how many captions are longer than `max_tokens`; None where that is not known.
      max_tokens: of the configuration.
      digests: of the contents of each image, by its record's name.
      faults: sentences by the kind of fault.
    """

    spec: str
    source: Source | None = None
    sizes: Counter[tuple[int, ...]] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)
    per_image: Counter[int] = field(default_factory=Counter)
    captions: Counter[int] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)
    cut: int | None = None
    max_tokens: int = 0
    digests: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, text: str) -> None:
        """Notes a fault."""
        self.faults.setdefault(kind, []).append(text)


@dataclass(frozen=True)
class _Read:
    """What one record shows."""

    name: str
    digest: bytes = b""
    size: tuple[int, ...] = ()
    classes: np.ndarray | None = None
    texts: Sequence[str] = ()
    faults: Sequence[tuple[str, str]] = ()


def check(data: ConfigDict, specs: Sequence[str], kinds: tuple[Kind, ...]) -> Iterator[Report]:
    """Reads every record of some splits.

    Args:
      data: the group of a configuration.
      specs: the splits.
      kinds: of annotations that are looked at.

    Raises:
      UserError: the configuration is wrong, and not the data.
    """
    places: dict[bytes, tuple[str, str]] = {}
    learned = functools.cache(lambda: _vocabulary(data, kinds))
    for spec in specs:
        report = Report(spec)
        try:
            report.source = open_split(data, spec)
        except DataError as error:
            for problem in error.problems:
                report.add(WRONG, problem)
        else:
            texts, settings = _read_all(report, report.source, data, kinds)
            if texts:
                _count_words(report, texts, with_vocabulary(settings, learned()))
        for name, digest in report.digests.items():
            before = places.setdefault(digest, (name, spec))
            if before != (name, spec):
                report.add(TWICE, f"{name}, as {before[0]} of {before[1]!r}")
        yield report


def _vocabulary(data: ConfigDict, kinds: tuple[Kind, ...]) -> dict[str, Any] | None:
    """That of the split to train on; None where nothing is learned of it, as its report will say.

    Raises:
      UserError: a given tokenizer is wrong.
    """
    known = vocabulary_of(data, kinds, None)
    if known is not None:
        return known
    try:
        return vocabulary_of(data, kinds, open_split(data, data.train))
    except (FaultyRecord, DataError, CorruptImageError):
        return None


def _count_words(report: Report, texts: Sequence[str], settings: Settings) -> None:
    report.words.update(word for text in texts for word in words(text))
    report.max_tokens = settings.max_tokens
    if (known := settings.tokenizer) is not None:
        report.cut = sum(len(known.tokens(text)) + 2 > settings.max_tokens for text in texts)


def _read_all(
    report: Report, source: Source, data: ConfigDict, kinds: tuple[Kind, ...]
) -> tuple[list[str], Settings]:
    """Reads the records for a report; gives their texts, and what annotations have to be."""
    said: list[str] = []
    settings = settings_of(data, len(data.classes) or len(source.class_names))
    decode = Decode(data.channels, kinds, settings)
    for kind, texts in faults_of(source).items():
        report.faults.setdefault(kind, []).extend(texts)
    with ThreadPoolExecutor() as pool:
        records = pool.map(lambda index: _read(source, index, decode), range(len(source)))
        for record in tracked(records, f"Reading {report.spec}", len(source)):
            for kind, text in record.faults:
                report.add(kind, text)
            if record.digest:
                report.digests[record.name] = record.digest
            if record.size:
                report.sizes[record.size] += 1
            if record.texts:
                report.captions[len(record.texts)] += 1
                said.extend(record.texts)
            if record.classes is not None:
                # Masks have values of no class, too.
                within = record.classes[record.classes < len(source.class_names)]
                report.per_image[len(within)] += 1
                for number, count in zip(*np.unique(within, return_counts=True)):
                    report.classes[source.class_names[number]] += int(count)
    return said, settings


def faults_of(source: Any) -> Mapping[str, Sequence[str]]:
    """What a source has found by itself, of a whole split where it is cut."""
    while hasattr(source, "source"):
        source = source.source
    parts = getattr(source, "parts", ())
    found: dict[str, list[str]] = {}
    for part in parts:
        for kind, texts in faults_of(part).items():
            found[kind] = list(dict.fromkeys([*found.get(kind, []), *texts]))
    return found or getattr(source, "faults", {})


def _read(source: Source, index: int, decode: Decode) -> _Read:
    """One record, decoded as training decodes it."""
    name, digest, size = source.name(index), b"", ()
    try:
        record = source[index]
        content = record["image"]
        data = content if isinstance(content, bytes) else np.ascontiguousarray(content).tobytes()
        digest = hashlib.blake2b(data, digest_size=16).digest()
        found = decode(record, name)
    except CorruptImageError as error:
        return _Read(name, digest, size, faults=[(UNREADABLE, str(error))])
    except FaultyRecord as error:
        return _Read(name, digest, size, faults=[(error.fault, str(error))])
    except UserError as error:
        return _Read(name, digest, size, faults=[(WRONG, str(error))])
    faults, classes, texts = [], [], list[str]()
    present = [kind for kind in decode.kinds if kind.present(record)]
    if decode.kinds and not present:
        faults.append((BARE, name))
    before = decode.annotations_of(record, name)
    for kind in present:
        texts += kind.texts(found)
        named, had = kind.classes(found), kind.classes(before)
        if named is not None and had is not None:
            classes.append(named)
            if len(had) > len(named):
                faults.append((GONE, f"{name}: {len(had) - len(named)}"))
        if left_out := kind.left_out(found, decode.settings):
            faults.append((TOO_MANY, f"{name}: {left_out} more"))
    # Of a class that several kinds annotate, the one counts that has it most often.
    counts = (Counter(one.tolist()) for one in classes)
    most: Counter[int] = functools.reduce(operator.or_, counts, Counter())
    every = np.array(list(most.elements()), int) if classes else None
    return _Read(name, digest, found["image"].shape[:-1], every, texts, faults)


def readable(
    source: Source, data: ConfigDict, kinds: tuple[Kind, ...], count: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, decoded record) of some records from all over a source, without faulty ones."""
    settings = settings_of(data, len(data.classes) or len(source.class_names))
    decode = Decode(data.channels, kinds, settings)
    found = 0
    for index in _spread(len(source)):
        name = source.name(index)
        try:
            record = decode(source[index], name)
        except UserError:
            continue  # the report has it
        yield name, record
        found += 1
        if found == count:
            return


def _spread(count: int) -> Iterator[int]:
    """All of 0 to `count` - 1, the first few far from each other."""
    step = 1 << max(count - 1, 0).bit_length()
    seen = set()
    while step:
        for index in range(0, count, step):
            if index not in seen:
                seen.add(index)
                yield index
        step //= 2
