"""Text in pictures: fonts that have its characters, lines that fit."""

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageFont

from jaxvision.inspect import text


def drawn(words, font):
    return np.asarray(font.getmask(words)).tobytes()


@pytest.mark.parametrize("words", ["кошка", "γάτα", "Kätzchen", "גור", "կատու"])
def test_class_names_of_other_alphabets_are_written(words):
    font = text.font_for(words, 13)
    assert isinstance(font, ImageFont.FreeTypeFont)
    letters = {drawn(letter, font) for letter in words}
    assert len(letters) == len(set(words))  # not a box for each
    assert drawn("\uffff", font) not in letters


def test_ascii_needs_no_search(monkeypatch):
    monkeypatch.setattr(text, "_fonts", pytest.fail)
    text.font_for.cache_clear()
    assert text.font_for("a cat", 13).getlength("a cat") > 20


def test_the_first_font_that_has_all_characters_is_taken(monkeypatch, caplog):
    real = text._fonts()[0]
    monkeypatch.setattr(text, "_fonts", lambda: ("latin", real, "chinese"))
    have = {"latin": frozenset(map(ord, "abc")), real: frozenset(map(ord, "abcд"))}
    monkeypatch.setattr(text, "_characters", lambda path: have.get(path, frozenset()))
    text.font_for.cache_clear()
    assert text.font_for("aд", 13).path == real
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert text.font_for("aд猫", 13).path == real
    assert "No font on this machine has 猫" in caplog.text
    text.font_for.cache_clear()


def test_files_that_are_no_fonts_have_no_characters(tmp_path):
    (tmp_path / "x.ttf").write_bytes(b"no font")
    assert text._characters(str(tmp_path / "x.ttf")) == frozenset()


def test_lines_break_between_words_and_lose_nothing():
    font = ImageFont.load_default(13)
    words = "a rather long caption of a photograph " + "w" * 40
    lines = text.wrapped(words, font, 100)
    assert all(font.getlength(line) <= 100 for line in lines)
    assert "".join(lines).replace(" ", "") == words.replace(" ", "")
    assert lines[0] == "a rather long"
    assert text.wrapped("", font, 100) == [""]
    assert text.wrapped("cat", font, 100) == ["cat"]


@settings(deadline=None, max_examples=50)
@given(st.text(st.characters(max_codepoint=0x2100, exclude_categories=["Cs"]), max_size=30))
def test_any_text_is_laid_out_once_it_is_printable(words):
    shown = text.printable(words)
    assert len(shown) == len(words)
    font = ImageFont.truetype(text._fonts()[0], 13)
    assert "".join(text.wrapped(shown, font, 80)).replace(" ", "") == shown.replace(" ", "")


def test_ends_of_paragraphs_and_controls_become_spaces():
    assert text.printable("one\u2029two\nthree\x00ü 🐕") == "one two three ü 🐕"
