"""Sentences about an image.

A source's record has `captions`, a sequence of texts, or `caption`, one text; UTF-8 where they are
bytes. On the host a record has `captions`, a tuple of str. A batch has, with n captions an image
(`Settings.max_captions`):

- `caption` uint8 [b, n, limit], UTF-8 that zeros follow;
- `caption_valid` bool [b, n], which of them there are;
- `caption_tokens` int32 [b, n, max_tokens], where a tokenizer is known: begin, the words, end, and
  then pad. A caption of more tokens is cut and ends all the same.

In training one of an image's captions is drawn for each epoch. It stands first, the others follow
in their order. Of more captions than n the first stay.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxvision.data import caption_frequencies, tokenizer
from jaxvision.data.annotations.kind import FaultyRecord, Kind, Record, Settings
from jaxvision.data.codecs import CorruptImageError
from jaxvision.data.sources.splits import captions_of
from jaxvision.progress import tracked

# Faults of a data set:
NONE = "images without a caption"
EMPTY = "images with an empty caption"
NO_TEXT = "images with a caption that is no text"
TOO_LONG = "images with a caption of more bytes than data.max_caption"


class Caption(Kind):
    """Texts on the host, bytes and tokens in a batch."""

    record_keys = ("captions",)
    batch_keys = ("caption", "caption_valid", "caption_tokens")
    forms = {"caption": "captions"}
    required = True

    def present(self, record: Record) -> bool:
        return "captions" in record or "caption" in record

    def decode(self, record: Record, name: str, settings: Settings) -> dict[str, Any]:
        texts = texts_of(record, name)
        limit = settings.max_caption
        if (most := max(len(text.encode()) for text in texts)) > limit:
            raise FaultyRecord(
                TOO_LONG,
                f"A caption of {name} has {most} bytes; raise data.max_caption, which is {limit}.",
            )
        return {"captions": texts}

    def draw(self, record: Record, rng: np.random.Generator) -> dict[str, Any]:
        texts = record["captions"]
        if len(texts) < 2:
            return {}
        drawn = int(rng.integers(len(texts)))
        return {"captions": (texts[drawn], *texts[:drawn], *texts[drawn + 1 :])}

    def pad(self, record: Record, name: str, settings: Settings) -> dict[str, np.ndarray]:
        texts = record["captions"][: settings.max_captions]
        rows = np.zeros((settings.max_captions, settings.max_caption), np.uint8)
        for row, text in zip(rows, texts):
            data = np.frombuffer(text.encode(), np.uint8)
            row[: len(data)] = data
        found = {"caption": rows, "caption_valid": np.arange(len(rows)) < len(texts)}
        if (known := settings.tokenizer) is not None:
            tokens = np.full((len(rows), settings.max_tokens), known.pad, np.int32)
            for place, text in enumerate(texts):
                tokens[place] = known.encode(text, settings.max_tokens)
            found["caption_tokens"] = tokens
        return found

    def texts(self, record: Record) -> tuple[str, ...]:
        return record["captions"]

    def vocabulary(self, data: ConfigDict, source: Any | None) -> dict[str, Any] | None:
        level, frequencies = data.get("tokenizer", "word"), data.get("caption_frequencies", False)
        trained = level in tokenizer.LEVELS
        if source is None and trained:
            return None
        found = None if trained else tokenizer.load(Path(level).expanduser())
        images: Sequence[Sequence[str]] = ()
        if source is not None and (found is None or frequencies):
            images = _all_texts(source, data.on_corrupt == "skip")
        if found is None:
            size, least = data.get("vocabulary_size", 10_000), data.get("min_count", 1)
            found = tokenizer.train(
                (text for texts in images for text in texts), level, size, least
            )
        vocabulary = found.to_vocabulary()
        if frequencies and source is not None:
            limit = data.get("max_tokens", 32) - 2
            counted = caption_frequencies.count(
                [found.tokens(text)[:limit] for text in texts] for texts in images
            )
            vocabulary |= caption_frequencies.to_vocabulary(counted)
        return vocabulary


def texts_of(record: Record, name: str) -> tuple[str, ...]:
    """The captions of a source's record, without space at their ends.

    Raises:
      FaultyRecord: there is none, one is empty, or one is no text; `name` says whose it is.
    """
    given = record["captions"] if "captions" in record else record["caption"]
    several = (given,) if isinstance(given, (str, bytes)) or "captions" not in record else given
    texts = tuple(_text(one, name).strip() for one in several)
    if not texts:
        raise FaultyRecord(NONE, f"{name} has no caption; expected one or more.")
    if not all(texts):
        raise FaultyRecord(EMPTY, f"{name} has an empty caption.")
    return texts


def _text(given: Any, name: str) -> str:
    if not isinstance(given, (str, bytes)):
        raise FaultyRecord(NO_TEXT, f"A caption of {name} is {given!r}; expected text.")
    try:
        text = given.decode() if isinstance(given, bytes) else given
        text.encode()  # JSON may have halves of characters
    except UnicodeError as error:
        raise FaultyRecord(NO_TEXT, f"A caption of {name} is not UTF-8: {error}.") from error
    return text


def _all_texts(source: Any, skip: bool) -> list[tuple[str, ...]]:
    """The captions of every record of a source, which is read where it does not offer them.

    Args:
      source: of records.
      skip: whether records that cannot be read are left out.

    Raises:
      CorruptImageError: a record cannot be read.
      FaultyRecord: a record has no captions, or wrong ones.
    """
    count, known = len(source), captions_of(source)
    if known is not None:
        return [texts_of({"captions": one}, source.name(i)) for i, one in enumerate(known)]

    def read(index: int) -> tuple[str, ...] | None:
        name = source.name(index)
        try:
            record = source[index]
        except CorruptImageError:
            if skip:
                return None
            raise
        if "captions" not in record and "caption" not in record:
            raise FaultyRecord(NONE, f"{name} has no caption; is this a data set of captions?")
        return texts_of(record, name)

    with ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as pool:
        found = list(tracked(pool.map(read, range(count)), "Reading captions", count))
    return [texts for texts in found if texts is not None]


def text_of(row: np.ndarray) -> str:
    """The text of a caption of a batch."""
    return row.tobytes().rstrip(b"\0").decode()
