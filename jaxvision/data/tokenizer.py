"""Texts as numbers, on the `tokenizers` library: trained from captions, or of a `tokenizer.json`.

The level of a tokenizer says how texts are cut:

- `word`: what `jaxvision.metrics.captioning.words` finds, lower-cased words without punctuation. A
  script without spaces between words has one word a sentence; it wants `bpe`.
- `bpe`: bytes, and pairs of tokens that are often side by side (Sennrich et al. 2016,
  https://arxiv.org/abs/1508.07909, on bytes as GPT-2). Any text comes back as it was.
- `given`: as a file says.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from jaxtyping import Int
from tokenizers import decoders, models, pre_tokenizers, trainers

from jaxvision.errors import UserError, unknown
from jaxvision.metrics.captioning import words

LEVELS = ("word", "bpe")
_GIVEN = "given"
_SPECIAL = ("<pad>", "<start>", "<end>", "<unk>")  # of what is trained here, numbered from 0 on
# What others call them, the first that there is; GPT-2's has one for all.
_NAMES = {
    "begin": ("<start>", "<s>", "[CLS]", "<bos>", "<|startoftext|>", "<|endoftext|>"),
    "end": ("<end>", "</s>", "[SEP]", "<eos>", "<|endoftext|>"),
    "pad": ("<pad>", "[PAD]", "<|endoftext|>"),
    "unknown": ("<unk>", "[UNK]", "<|endoftext|>"),
}


@dataclass(frozen=True)
class Tokenizer:
    """Texts to tokens and back. Nothing may assume that begin, end and pad differ.

    Attributes:
      definition: the text of a `tokenizer.json`.
      level: see above.
      begin, end: the tokens before and after a text.
      pad: the token that fills a row.
      unknown: the token of what has no other.
    """

    definition: str
    level: str
    begin: int
    end: int
    pad: int
    unknown: int

    @cached_property
    def _library(self) -> tokenizers.Tokenizer:
        found = tokenizers.Tokenizer.from_str(self.definition)
        found.no_padding()
        found.no_truncation()
        found.encode_special_tokens = True  # a text in which "<end>" stands does not end there
        return found

    def __getstate__(self) -> dict[str, Any]:
        """Without the library's object, whose copies would forget what it was told."""
        return asdict(self)

    @cached_property
    def size(self) -> int:
        """How many tokens there are: the largest is one less."""
        return max(self._library.get_vocab(with_added_tokens=True).values()) + 1

    def tokens(self, text: str) -> list[int]:
        """The tokens of a text, without begin and end."""
        prepared = " ".join(words(text)) if self.level == "word" else text
        return self._library.encode(prepared, add_special_tokens=False).ids

    def encode(self, text: str, limit: int) -> Int[np.ndarray, " limit"]:
        """Begin, the tokens of a text, end, and then pad. Of too many tokens the last are left out.

        Args:
          text: any.
          limit: how many to give, begin and end among them.
        """
        found = [self.begin, *self.tokens(text)[: limit - 2], self.end]
        row = np.full(limit, self.pad, np.int32)
        row[: len(found)] = found
        return row

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens up to the first end; a begin in the first place is left out."""
        found = [int(token) for token in tokens]
        if found and found[0] == self.begin:
            found = found[1:]
        if self.end in found:
            found = found[: found.index(self.end)]
        found = [token for token in found if token != self.pad]
        return self._library.decode(found, skip_special_tokens=False)

    def to_vocabulary(self) -> dict[str, Any]:
        """As a table for JSON, which `Facts.vocabulary` holds."""
        return asdict(self)

    @classmethod
    def of(cls, vocabulary: Mapping[str, Any]) -> "Tokenizer":
        """The tokenizer of `to_vocabulary`; what else the table has is not looked at.

        Raises:
          UserError: the table is damaged.
        """
        given: dict[str, Any] = {one.name: vocabulary.get(one.name) for one in fields(cls)}
        try:
            if given["level"] not in (*LEVELS, _GIVEN):
                raise ValueError(f"its level is {given['level']!r}")
            found = cls(**given)
            for name in ("begin", "end", "pad", "unknown"):
                if type(given[name]) is not int or not 0 <= given[name] < found.size:
                    raise ValueError(f"its {name} is {given[name]!r}, of {found.size} tokens")
        except Exception as error:  # the library raises nothing more special
            raise UserError(f"The vocabulary of the facts is damaged: {error}.") from error
        return found


def train(texts: Iterable[str], level: str, size: int, min_count: int = 1) -> Tokenizer:
    """A tokenizer of texts: of the same texts, in any order, the same to the last byte.

    Args:
      texts: to learn from.
      level: `word` or `bpe`.
      size: how many tokens there are at most, special ones among them. The most frequent words
        stay; `bpe` joins pairs, the most frequent first, until there are so many.
      min_count: words that occur less often are unknown, pairs are not joined.

    Raises:
      UserError: there is no such level, no word, or the size has no place for what must be there.
    """
    if level not in LEVELS:
        raise unknown("level of a tokenizer", level, LEVELS)
    least = len(_SPECIAL) + (256 if level == "bpe" else 1)
    if size < least:
        raise UserError(f"A vocabulary of {size} is too small; {level!r} needs {least} or more.")
    options: dict[str, Any] = {
        "vocab_size": size,
        "min_frequency": min_count,
        "special_tokens": list(_SPECIAL),
        "show_progress": False,
    }
    if level == "word":
        found = tokenizers.Tokenizer(models.WordLevel(unk_token="<unk>"))
        found.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        trainer: Any = trainers.WordLevelTrainer(**options)
        texts = (" ".join(words(text)) for text in texts)
    else:
        found = tokenizers.Tokenizer(models.BPE())
        # It keeps letters and punctuation apart, so that no pairs ever come to spell "<end>".
        found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        found.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(initial_alphabet=alphabet, **options)
    found.train_from_iterator(texts, trainer)
    if level == "word" and found.get_vocab_size() == len(_SPECIAL):
        raise UserError(f"The captions have no word that occurs {min_count} times or more.")
    pad, begin, end, other = range(len(_SPECIAL))
    return Tokenizer(found.to_str(), level, begin, end, pad, other)


def load(path: Path) -> Tokenizer:
    """The tokenizer of a `tokenizer.json`, as the `tokenizers` library and the Hub have them.

    Its special tokens are looked for by their usual names; without one that pads, `end` does, and
    without one for what is unknown, what pads.

    Raises:
      UserError: there is no such file, it is something else, or has no token to begin or to end.
    """
    if not path.is_file():
        near = [p.name for p in path.parent.glob("*.json")] if path.parent.is_dir() else []
        raise unknown(f"tokenizer in {path.parent}", path.name, [*LEVELS, *near])
    try:
        # Parsed first: the library is slow with large files that are something else.
        definition = json.dumps(json.loads(path.read_bytes()), separators=(",", ":"))
        library = tokenizers.Tokenizer.from_str(definition)
    except Exception as error:  # the library raises nothing more special
        raise UserError(f"{path} is no tokenizer.json: {str(error).rstrip('.')}.") from error
    special = {role: _special(library, names) for role, names in _NAMES.items()}
    for role in ("begin", "end"):
        if special[role] < 0:
            raise UserError(
                f"{path} has no token for the {role} of a text; expected one of "
                f"{', '.join(_NAMES[role])}."
            )
    for role, instead in (("pad", "end"), ("unknown", "pad")):
        if special[role] < 0:
            special[role] = special[instead]
    return Tokenizer(definition, _GIVEN, **special)


def _special(library: tokenizers.Tokenizer, names: Iterable[str]) -> int:
    """The token of the first of these names that there is; -1 of none."""
    numbers = (library.token_to_id(name) for name in names)
    return next((number for number in numbers if number is not None), -1)
