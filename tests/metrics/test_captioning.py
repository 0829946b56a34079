"""BLEU, ROUGE-L and CIDEr against COCO's evaluators, and what they count."""

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from parity.captions import CANDIDATES, PATH, REFERENCES

from jaxvision.metrics import captioning

ENGLISH = st.text(st.characters(codec="ascii"))


def test_numbers_are_those_of_the_evaluators():
    expected = json.loads(PATH.read_text())
    found = captioning.bleu(CANDIDATES, REFERENCES)
    np.testing.assert_allclose(found, expected["bleu"], rtol=1e-14)
    found = captioning.rouge_l(CANDIDATES, REFERENCES)
    assert found == pytest.approx(expected["rouge_l"], rel=1e-14)
    assert captioning.cider(CANDIDATES, REFERENCES) == pytest.approx(expected["cider"], rel=1e-14)
    each = captioning.cider_d(CANDIDATES, REFERENCES)
    np.testing.assert_allclose(each, expected["cider_of_each"], rtol=1e-13)


def test_the_captions_of_coco(shared_data):
    root = shared_data / "coco_mini_val"
    if not root.is_dir():
        pytest.skip("needs coco_mini_val")
    expected = json.loads((root / "evaluator_parity" / "expected.json").read_text())
    expected = expected["captions_leave_one_out"]
    stored = json.loads((root / "annotations" / "captions_val2017.json").read_text())
    texts = {}
    for one in sorted(stored["annotations"], key=lambda one: one["id"]):
        texts.setdefault(one["image_id"], []).append(one["caption"])
    candidates, references = [t[0] for t in texts.values()], [t[1:] for t in texts.values()]
    assert len(candidates) == expected["images"]
    assert captioning.bleu(candidates, references).tolist() == expected["bleu"]
    found = captioning.rouge_l(candidates, references)
    assert found == pytest.approx(expected["rouge_l"], rel=1e-15)
    assert captioning.cider(candidates, references) == expected["cider"]


def test_frequencies_may_be_those_of_other_captions():
    known = captioning.document_frequencies(REFERENCES)
    given = captioning.cider_d(CANDIDATES, REFERENCES, known, len(REFERENCES))
    np.testing.assert_array_equal(given, captioning.cider_d(CANDIDATES, REFERENCES))
    assert known[("a",)] == 6
    assert known[("a", "dog")] == 2
    # Where every n-gram is as rare as any other, a caption equals itself.
    alone = captioning.cider_d(["a b c d"], [["a b c d"]], {}, 10)
    np.testing.assert_allclose(alone, [10], rtol=1e-14)
    # Of a caption of one image each n-gram is in all documents, and says nothing.
    assert captioning.cider(["a b c d"], [["a b c d"]]) == 0


def test_perfect_and_hopeless_captions():
    perfect = captioning.bleu(["a b c d e"], [["z", "a b c d e"]])
    np.testing.assert_allclose(perfect, 1, rtol=1e-8)
    assert captioning.rouge_l(["a b c"], [["a b c", "d"]]) == 1
    for empty in ("", "!?"):
        assert captioning.bleu([empty], [["a b"]]).max() < 1e-3
        assert captioning.rouge_l([empty], [["a b"]]) == 0
        assert captioning.cider([empty, "a"], [["a b"], ["c"]]) == 0
    # Half of the words, in a brevity penalty of exp(1 - 4/2).
    np.testing.assert_allclose(
        captioning.bleu(["a x"], [["a b c d"]])[0], 0.5 * np.exp(-1), rtol=1e-6
    )


def test_distinct_captions():
    assert captioning.distinct(["A dog.", "a dog", "a cat", "a dog!"]) == 0.5
    assert captioning.distinct(["a"]) == 1
    with pytest.raises(ValueError, match="no caption"):
        captioning.distinct([])


@pytest.mark.parametrize(
    "wrong", [([], []), (["a"], []), (["a"], [[]]), (["a", "b"], [["a"]])], ids=str
)
def test_every_caption_has_references(wrong):
    for metric in (captioning.bleu, captioning.rouge_l, captioning.cider):
        with pytest.raises(ValueError, match="expected as many"):
            metric(*wrong)


@given(ENGLISH)
def test_words_of_english(text):
    assert captioning.words(text) == re.findall("[a-z0-9]+", text.lower())


def test_words_of_other_scripts():
    assert captioning.words("Él dijo: ¡Qué sí!") == ["él", "dijo", "qué", "sí"]
    assert captioning.words("हिन्दी में। 狗在跑 🐶 ΣΑΣ") == ["हिन्दी", "में", "狗在跑", "σας"]
    assert captioning.words("e\u0301t\u00e9 _x_ 3½") == ["e\u0301t\u00e9", "x", "3½"]
