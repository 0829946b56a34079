"""Captions from the record to the batch: which is drawn, what is learned of them, what is wrong."""

import json
import pickle

import numpy as np
import pytest

from jaxvision.data import caption_frequencies, sources, stream, tokenizer
from jaxvision.data.annotations import KINDS, Settings
from jaxvision.data.annotations.caption import text_of
from jaxvision.data.codecs import CorruptImageError
from jaxvision.data.facts import Facts
from jaxvision.data.loader import Share, host_batches
from jaxvision.data.sources.splits import captions_of, cut
from jaxvision.data.tokenizer import Tokenizer
from jaxvision.errors import UserError
from jaxvision.tasks import default_config

CAPTION = KINDS["caption"]
SAID = (
    ("a dog", "the dog", "one dog", "dogs"),
    ("a cat runs", "the cat"),
    ("Ein Hund 🐶",),
    ("a b c d e f", "z"),
    ("a dog", "x", "y", "w", "v", "u", "t"),
)


class Told:
    """Small images with what is said of them."""

    class_names = ()

    def __init__(self, said=SAID, read=None, offered=True):
        self.said, self.read = said, [] if read is None else read
        if offered:
            self.captions = lambda: self.said

    def __len__(self):
        return len(self.said)

    def __getitem__(self, index):
        self.read.append(index)
        if self.said[index] == "corrupt":
            raise CorruptImageError(self.name(index), "broken")
        record = {"image": np.full((2, 2, 3), index, np.uint8)}
        return record if self.said[index] is None else {**record, "captions": self.said[index]}

    def name(self, index):
        return f"{index}.jpg"


def stream_of(monkeypatch, source=None, spec="told", train=True, vocabulary=None, **keys):
    data = default_config().data
    for key, value in keys.items():
        data[key] = value
    given = Told() if source is None else source
    monkeypatch.setattr(stream, "open_split", lambda data, spec: cut(spec, lambda split: given))
    return stream.open_stream(
        data, spec, seed=3, train=train, annotations=("caption",), vocabulary=vocabulary
    )


def texts_in(record):
    return [text_of(row) for row in record["caption"][record["caption_valid"]]]


# -- batches --------------------------------------------------------------------------------------


def test_in_training_a_caption_is_drawn_and_stands_first(monkeypatch):
    opened = stream_of(monkeypatch)
    firsts = {index: [] for index in range(5)}
    for position in range(5 * 150):
        record = opened[position]
        index, texts = int(record["image_id"]), texts_in(record)
        firsts[index].append(texts[0])
        others = list(SAID[index])
        others.remove(texts[0])
        assert texts[1:] == others[:4]
        known = Tokenizer.of(opened.vocabulary)
        for tokens, text in zip(record["caption_tokens"], texts):
            np.testing.assert_array_equal(tokens, known.encode(text, 32))
        assert (record["caption_tokens"][len(texts) :] == known.pad).all()
    for index, drawn in firsts.items():  # each as often as the others, all seven of the last too
        counts = [drawn.count(text) for text in SAID[index]]
        assert min(counts) > 150 / len(SAID[index]) / 2
        assert len(SAID[index]) == 1 or len({tuple(drawn[:9]), tuple(drawn[9:18])}) == 2


def test_what_is_drawn_follows_from_the_seed_alone(monkeypatch):
    crop = ({"name": "random_crop", "size": 1},)
    streams = [
        stream_of(monkeypatch, train_transforms=crop, cache=cache) for cache in (False, True)
    ]
    expected = [streams[0].batch(range(4 * k, 4 * k + 4)) for k in range(3, 5)]
    for opened in streams:
        batches = list(host_batches(opened, Share(4), 3, 5))
        for batch, again in zip(batches, expected):
            for key in again:
                np.testing.assert_array_equal(batch[key], again[key])


def test_in_evaluation_captions_stand_in_their_order(monkeypatch):
    opened = stream_of(monkeypatch, train=False, max_captions=3, max_caption=20)
    assert "caption_tokens" not in opened[0]  # nothing is known of the words
    for index, said in enumerate(SAID):
        assert texts_in(opened[index]) == list(said[:3])
    blank = opened[5]
    assert not blank["caption"].any()
    assert not blank["caption_valid"].any()
    assert opened[0]["caption"].shape == (3, 20)


def test_long_captions_are_cut_and_end_all_the_same(monkeypatch):
    opened = stream_of(monkeypatch, max_tokens=5)
    known = Tokenizer.of(opened.vocabulary)
    record = next(r for r in map(opened.__getitem__, range(40)) if texts_in(r)[0] == SAID[3][0])
    assert record["caption_tokens"].shape == (5, 5)
    assert known.decode(record["caption_tokens"][0]) == "a b c"
    assert record["caption_tokens"][0, -1] == known.end
    with pytest.raises(
        UserError, match=r"of 2.jpg has 13 bytes; raise data.max_caption, which is 10"
    ):
        list(map(stream_of(monkeypatch, train=False, max_caption=10).__getitem__, range(5)))


# -- what is learned ------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["word", "bpe"])
def test_the_vocabulary_is_a_fact_of_the_training_split(monkeypatch, level):
    read, keys = [], {"tokenizer": level, "vocabulary_size": 300}
    source = Told(read=read)
    opened = stream_of(monkeypatch, source, spec="told[:3]", **keys)
    assert read == []  # no image
    facts = Facts.of_stream(opened)
    texts = [text for said in SAID[:3] for text in said]
    known = Tokenizer.of(facts.vocabulary)
    assert known == tokenizer.train(texts, level, 300)
    unoffered = stream_of(monkeypatch, Told(read=read, offered=False), spec="told[:3]", **keys)
    assert sorted(read) == [0, 1, 2]
    assert Facts.of_stream(unoffered).to_json() == facts.to_json()
    stored = Facts.from_json(facts.to_json())
    source.captions = None  # it is not asked again
    for train in (True, False):
        later = stream_of(monkeypatch, source, train=train, vocabulary=stored.vocabulary, **keys)
        assert later.settings.tokenizer == known
        assert later.vocabulary == facts.vocabulary
        copy = pickle.loads(pickle.dumps(later.settings))
        assert copy.tokenizer.tokens("a dog") == known.tokens("a dog")
    word = {"word": "<unk> ein hund", "bpe": "t Ein Hund 🐶"}[level]
    row = CAPTION.pad({"captions": ("t Ein Hund 🐶",)}, "rec", later.settings)
    assert known.decode(row["caption_tokens"][0]) == word


def test_a_given_tokenizer_is_known_without_captions(monkeypatch, tmp_path):
    path = tmp_path / "tokenizer.json"
    known = tokenizer.train(["a dog"], "bpe", 270)
    path.write_text(known.definition)
    for train in (True, False):
        opened = stream_of(monkeypatch, Told(offered=False), train=train, tokenizer=str(path))
        assert opened.source.source.read == []
        record = opened[0]
        given = Tokenizer.of(opened.vocabulary)
        assert (given.level, given.size) == ("given", known.size)
        assert given.decode(record["caption_tokens"][0]) == texts_in(record)[0]
    with pytest.raises(UserError, match=r"Unknown tokenizer in .*'tokens.json'.*'tokenizer.json'"):
        stream_of(monkeypatch, tokenizer=str(tmp_path / "tokens.json"))
    with pytest.raises(UserError, match=r"Unknown tokenizer in \. 'words'. Did you mean 'word'"):
        stream_of(monkeypatch, tokenizer="words")


def test_n_grams_are_counted_where_that_is_wanted(monkeypatch):
    opened = stream_of(monkeypatch, caption_frequencies=True, max_tokens=5)
    vocabulary = json.loads(Facts.of_stream(opened).to_json())["vocabulary"]
    known, found = Tokenizer.of(vocabulary), caption_frequencies.of(vocabulary)
    expected = caption_frequencies.count(
        [[known.tokens(text)[:3] for text in texts] for texts in SAID]
    )
    assert found.documents == 5
    np.testing.assert_array_equal(found.hashes, expected.hashes)
    np.testing.assert_array_equal(found.counts, expected.counts)
    assert set(found.counts) == {2, 4}  # "dog" and "a dog" in two images, "a" in four
    assert "ngrams" not in stream_of(monkeypatch, train=False, caption_frequencies=True)[0]
    assert "ngrams" not in stream_of(monkeypatch).vocabulary


# -- what is wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ((), "2.jpg has no caption; expected one or more"),
        (("a dog", " "), "2.jpg has an empty caption"),
        (("a dog", 3), "A caption of 2.jpg is 3; expected text"),
        ((b"\xff",), "A caption of 2.jpg is not UTF-8"),
        (("half of a dog \ud83d",), "A caption of 2.jpg is not UTF-8"),
        (None, r"2.jpg has no caption"),
    ],
)
def test_wrong_captions_are_named(monkeypatch, wrong, message):
    said = (*SAID[:2], wrong, *SAID[3:])
    for offered in (False,) if wrong is None else (True, False):
        with pytest.raises(UserError, match=message):  # before the first step
            stream_of(monkeypatch, Told(said, offered=offered))
    opened = stream_of(monkeypatch, Told(said), train=False)
    with pytest.raises(UserError, match=message):
        list(map(opened.__getitem__, range(5)))


def test_corrupt_records_teach_no_words_where_they_are_skipped(monkeypatch):
    said = (*SAID[:2], "corrupt", *SAID[3:])
    with pytest.raises(CorruptImageError, match=r"2\.jpg"):
        stream_of(monkeypatch, Told(said, offered=False))
    opened = stream_of(monkeypatch, Told(said, offered=False), on_corrupt="skip")
    assert opened.vocabulary == stream_of(monkeypatch, Told((*SAID[:2], *SAID[3:]))).vocabulary


def test_a_damaged_vocabulary_of_a_run_is_refused(monkeypatch):
    with pytest.raises(UserError, match="The vocabulary of the facts is damaged"):
        stream_of(monkeypatch, train=False, vocabulary={"level": "word"})


def test_limits_are_checked(monkeypatch):
    for key in ("max_captions", "max_tokens"):
        with pytest.raises(UserError, match=rf"data\.{key} is 0; expected 1 or more"):
            stream_of(monkeypatch, **{key: 0})
    row = CAPTION.pad({"captions": ("a", "b", "c")}, "rec", Settings(max_captions=2))
    assert row["caption_valid"].tolist() == [True, True]


# -- sources --------------------------------------------------------------------------------------


def test_captions_that_tfds_numbers():
    record = {"image": b"", "captions": {"id": [7, 8], "text": [b"a dog", b"dogs"]}}
    assert sources.Tfds([record], "coco_captions", ())[0]["captions"] == [b"a dog", b"dogs"]


def test_parts_of_a_source_offer_their_captions():
    def load(split):
        return Told(SAID if split == "train" else SAID[::-1], offered=split != "read")

    assert captions_of(load("train")) == SAID
    assert list(captions_of(cut("train[1:3]", load))) == list(SAID[1:3])
    joined = cut("train[1:2]+other[:1]+train[:1]", load)
    assert captions_of(joined) == [SAID[1], SAID[4], SAID[0]]
    assert captions_of(cut("train+read", load)) is None
    assert captions_of(cut("read[:2]", load)) is None
