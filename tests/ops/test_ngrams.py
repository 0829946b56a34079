"""CIDEr-D of token ids against that of texts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvision.data import caption_frequencies
from jaxvision.errors import UserError
from jaxvision.metrics import captioning
from jaxvision.ops import ngrams

LENGTH, REFERENCES, IMAGES = 7, 3, 4
score = jax.jit(ngrams.cider_d)


def text(tokens):
    return " ".join(f"w{token}" for token in tokens)


def padded(rows, shape, fill):
    found, lengths = np.full((*shape, LENGTH), fill, np.int32), np.zeros(shape, np.int32)
    for index in np.ndindex(shape):
        row = rows
        for place in index:
            row = row[place] if place < len(row) else []
        found[index][: len(row)], lengths[index] = row, len(row)
    return jnp.asarray(found), jnp.asarray(lengths)


CAPTION = st.lists(st.integers(0, 5), min_size=1, max_size=LENGTH)
IMAGE = st.tuples(CAPTION, st.lists(CAPTION, min_size=1, max_size=REFERENCES))


@settings(max_examples=60, deadline=None)
@given(st.lists(IMAGE, min_size=IMAGES, max_size=IMAGES), st.integers(0, 5))
def test_tokens_score_as_words(images, fill):
    """Whatever the rows are filled with."""
    candidates, references = [one for one, _ in images], [several for _, several in images]
    frequencies = caption_frequencies.count(references)
    expected = captioning.cider_d(
        [text(one) for one in candidates],
        [[text(one) for one in several] for several in references],
    )
    found = score(
        *padded(candidates, (IMAGES,), fill),
        *padded(references, (IMAGES, REFERENCES), fill),
        jnp.asarray([[place < len(some) for place in range(REFERENCES)] for some in references]),
        ngrams.Frequencies(
            frequencies.documents,
            # Of one shape in every example: what is not met in captions fills the rest.
            np.append(frequencies.hashes, np.full(200 - len(frequencies.hashes), 2**32 - 1)).astype(
                np.uint32
            ),
            np.append(frequencies.counts, np.ones(200 - len(frequencies.counts))).astype(np.uint32),
        ),
    )
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


def test_an_image_without_references_and_a_table_without_entries():
    tokens = jnp.asarray([[1, 2, 3]])
    none = ngrams.Frequencies(4, np.zeros(0, np.uint32), np.zeros(0, np.uint32))
    lengths = jnp.asarray([3])
    arguments = (tokens, lengths, tokens[None], lengths[None])
    assert score(*arguments, jnp.asarray([[False]]), none).tolist() == [0]
    # Three of the four lengths of n-grams agree wholly, and there is none of four.
    np.testing.assert_allclose(score(*arguments, jnp.asarray([[True]]), none), [7.5], rtol=1e-6)


def test_hashes_are_the_same_on_host_and_device():
    tokens = np.random.default_rng(0).integers(0, 50_000, (4, 1000), np.int32)
    for n in range(1, 5):
        host = ngrams.hashes(tokens, n)
        assert (host.shape, host.dtype) == ((4, 1001 - n), np.uint32)
        np.testing.assert_array_equal(host, ngrams.hashes(jnp.asarray(tokens), n))
        windows = np.lib.stride_tricks.sliding_window_view(tokens, n, -1).reshape(-1, n)
        assert len(np.unique(host)) == len(np.unique(windows, axis=0))
    assert ngrams.hashes(tokens[:, :2], 3).shape == (4, 0)
    assert ngrams.hashes(np.int32([7, 7]), 1)[0] != ngrams.hashes(np.int32([0, 7]), 2)[0]
    assert ngrams.hashes(np.int32([1, 2]), 2)[0] != ngrams.hashes(np.int32([2, 1]), 2)[0]


def test_lengths_before_the_first_end():
    tokens = jnp.asarray([[5, 6, 2, 6, 2], [5, 6, 7, 8, 9], [2, 2, 2, 2, 2]])
    assert ngrams.lengths_before(tokens, 2).tolist() == [2, 5, 0]


def test_frequencies_are_kept_with_the_vocabulary():
    images = [[[1, 2, 3], [1, 2]], [[1, 2, 4]], [[5]], []]
    found = caption_frequencies.count(images)
    assert found.documents == 4
    often = {
        tuple(gram): ngrams.hashes(np.int32(gram), len(gram))[0] for gram in ([1], [2], [1, 2])
    }
    assert found.hashes.tolist() == sorted(often.values())
    assert found.counts.tolist() == [2, 2, 2]
    stored = caption_frequencies.to_vocabulary(found)
    again = caption_frequencies.of({"level": "word", **stored})
    for one, other in zip(found, again):
        np.testing.assert_array_equal(one, other)
    assert len(caption_frequencies.count([]).hashes) == 0
    with pytest.raises(UserError, match=r"data\.caption_frequencies=True"):
        caption_frequencies.of({"level": "word"})
    for change in ({"ngrams": stored["ngrams"][:-5]}, {"ngrams": 3}, {"documents": "many"}):
        with pytest.raises(UserError, match="frequencies of n-grams in the facts are damaged"):
            caption_frequencies.of({**stored, **change})
