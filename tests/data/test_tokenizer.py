"""Tokenizers: training, the way there and back, files of others, what is damaged."""

import json
import pickle

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers

from jaxvision.data import tokenizer
from jaxvision.data.tokenizer import Tokenizer
from jaxvision.errors import UserError

CAPTIONS = [
    "A dog runs, fast.",
    "Two dogs run; a dog sits!",
    "Ein Hund läuft über die Straße",
    "Собака бежит.",
    "一只狗在跑",
    "कुत्ता दौड़ता है",
    "a dog 🐶 <end> of line",
]
WORD = tokenizer.train(CAPTIONS, "word", 100)
BPE = tokenizer.train(CAPTIONS, "bpe", 300)


def text_without_halves():
    return st.text(st.characters(exclude_categories=["Cs"]))  # which no UTF-8 has


@given(text_without_halves())
def test_bytes_come_back_as_they_were(text):
    tokens = BPE.tokens(text)
    assert BPE.decode([BPE.begin, *tokens, BPE.end, BPE.pad, 7]) == text
    assert BPE.decode(BPE.encode(text, len(tokens) + 2)) == text
    assert all(4 <= token < BPE.size for token in tokens)


@pytest.mark.parametrize(
    "text", [*CAPTIONS, "🐶👩‍👩‍👧 한국어 العربية", "<end>", "<pad> <start><unk>", ""]
)
def test_every_script_comes_back(text):
    assert BPE.decode(BPE.encode(text, 99)) == text


def test_special_tokens_in_a_text_are_letters():
    often = tokenizer.train(["<end> <pad>"] * 50, "bpe", 400)
    assert not {often.end, often.pad} & set(often.tokens("an <end> <pad>"))
    words = tokenizer.train(["<end> <pad>"] * 50, "word", 400)
    assert words.decode(words.encode("<END>, pad!", 9)) == "end pad"
    assert words.size == 6


def test_words_are_lower_cased_and_without_punctuation():
    assert WORD.decode(WORD.encode("TWO dogs -- run (a DOG).", 12)) == "two dogs run a dog"
    assert WORD.decode(WORD.encode("STRASSE ÜBER, СОБАКА", 12)) == "<unk> über собака"
    assert WORD.decode(WORD.encode("कुत्ता 🐶 一只狗在跑。", 12)) == "कुत्ता 一只狗在跑"
    assert WORD.decode(WORD.encode("🐶!", 12)) == ""


def test_rows_are_padded_and_cut():
    assert WORD.encode("a zebra dog", 7).tolist() == [
        WORD.begin, *WORD.tokens("a"), WORD.unknown, *WORD.tokens("dog"), WORD.end, 0, 0
    ]  # fmt: skip
    cut = WORD.encode("a dog runs fast", 4)
    assert (cut.dtype, cut.tolist()) == (np.int32, [1, *WORD.tokens("a dog"), 2])
    assert WORD.encode("a dog", 2).tolist() == [1, 2]
    assert WORD.decode(WORD.tokens("a dog")) == "a dog"
    assert WORD.decode([]) == WORD.decode([WORD.begin]) == WORD.decode([WORD.end, 7]) == ""


def test_frequent_words_stay():
    texts = ["a a a b b c", "c d"]
    twice = tokenizer.train(texts, "word", 100, min_count=2)
    assert twice.decode(twice.encode("a b c d", 9)) == "a b c <unk>"
    small = tokenizer.train(texts, "word", 6)
    assert (small.size, small.decode(small.encode("a b c d", 9))) == (6, "a b <unk> <unk>")
    rare = tokenizer.train(texts, "bpe", 400, min_count=50)
    assert (rare.size, rare.decode(rare.encode("a b c d", 9))) == (260, "a b c d")


@pytest.mark.parametrize("level", tokenizer.LEVELS)
def test_of_the_same_texts_it_is_the_same(level):
    several = [tokenizer.train(texts, level, 290) for texts in (CAPTIONS, CAPTIONS[::-1]) * 3]
    assert len(set(several)) == 1
    stored = json.loads(json.dumps(several[0].to_vocabulary(), sort_keys=True))
    again = Tokenizer.of({**stored, "documents": 3})
    copy = pickle.loads(pickle.dumps(again))
    assert several[0] == again == copy
    assert copy.size == again.size == several[0].size
    assert copy.tokens(CAPTIONS[-1]) == again.tokens(CAPTIONS[-1])


@pytest.mark.parametrize(
    ("texts", "level", "size", "message"),
    [
        (CAPTIONS, "words", 100, "Unknown level of a tokenizer 'words'. Did you mean 'word'"),
        (CAPTIONS, "bpe", 259, "vocabulary of 259 is too small; 'bpe' needs 260 or more"),
        (CAPTIONS, "word", 4, "'word' needs 5 or more"),
        (["!?", "🐶"], "word", 100, "no word that occurs 1 times"),
    ],
)
def test_what_cannot_be_trained(texts, level, size, message):
    with pytest.raises(UserError, match=message):
        tokenizer.train(texts, level, size)


# -- files of others ------------------------------------------------------------------------------


def gpt2(special=("<|endoftext|>",)):
    """A byte-level tokenizer of two merges, whose special tokens come last."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    vocabulary |= {"do": 256, "dog": 257}
    library = tokenizers.Tokenizer(models.BPE(vocabulary, [("d", "o"), ("do", "g")]))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens(list(special))
    library.enable_padding(length=40)
    library.enable_truncation(3)
    return library.to_str()


@pytest.fixture
def stored(tmp_path):
    def write(content):
        path = tmp_path / "tokenizer.json"
        path.write_text(content, encoding="utf-8")
        return path

    return write


def test_one_token_may_begin_end_and_pad(stored):
    found = tokenizer.load(stored(gpt2()))
    assert found.begin == found.end == found.pad == found.unknown == 258
    assert found.size == 259
    row = found.encode("dog 🐶", 12)
    assert row[:2].tolist() == [258, 257]
    assert row[-4:].tolist() == [258] * 4
    assert found.decode(row) == "dog 🐶"
    assert found.decode(row[1:]) == "dog 🐶"
    assert found.decode([258] * 5) == ""
    assert 258 not in found.tokens("a <|endoftext|> dog")
    assert Tokenizer.of(found.to_vocabulary()) == found


def test_special_tokens_are_found_by_their_names(stored):
    found = tokenizer.load(stored(gpt2(("[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]"))))
    assert (found.begin, found.end, found.pad, found.unknown) == (258, 259, 260, 261)
    found = tokenizer.load(stored(gpt2(("<s>", "</s>"))))
    assert (found.begin, found.end, found.pad, found.unknown) == (258, 259, 259, 259)
    with pytest.raises(UserError, match=r"no token for the begin of a text; expected one of <sta"):
        tokenizer.load(stored(gpt2(("</s>",))))
    with pytest.raises(UserError, match=r"no token for the end of a text"):
        tokenizer.load(stored(gpt2(("<s>",))))


def test_what_is_no_tokenizer_is_said(stored, tmp_path):
    text = gpt2()
    others = ["", "{}", "[]", "3", '{"dog": 1}', '{"version": "1.0", "model": null}', "\ufeff{}"]
    for content in (*others, *(text[: len(text) * part // 9] for part in range(9))):
        with pytest.raises(UserError, match=r"tokenizer.json is no tokenizer.json: .*\.$"):
            tokenizer.load(stored(content))
    (tmp_path / "tokenizer.json").write_bytes(b"\xff\xfe\x00" + text.encode())
    with pytest.raises(UserError, match=r"is no tokenizer.json"):
        tokenizer.load(tmp_path / "tokenizer.json")
    with pytest.raises(UserError, match=r"'tokenizr.json'. Did you mean 'tokenizer.json'"):
        tokenizer.load(tmp_path / "tokenizr.json")
    with pytest.raises(UserError, match=r"Valid: bpe, word\."):
        tokenizer.load(tmp_path / "no" / "tokenizer.json")


@pytest.mark.parametrize(
    "change",
    [
        {"definition": WORD.definition[:-9]},
        {"definition": None},
        {"level": "letter"},
        {"level": ["word"]},
        {"pad": WORD.size},
        {"end": "2"},
        {"begin": None},
        {"unknown": -1},
        {"unknown": True},
    ],
)
def test_a_damaged_vocabulary_is_refused(change):
    with pytest.raises(UserError, match=r"The vocabulary of the facts is damaged: .*\.$"):
        Tokenizer.of({**WORD.to_vocabulary(), **change})
