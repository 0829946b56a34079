"""Decoding over networks small enough to count all sequences; `generate` is in test_vit_gpt2.py."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.errors import UserError
from jaxvision.ops import decoding

WORDS, END, PAD, BEGIN = 4, 3, 9, 0
SPECIAL = {"begin": BEGIN, "end": END, "pad": PAD}


def tables(images, seed=0):
    """Logits of the next token by the last one and the one before, for each image."""
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(0, 1.5, (images, WORDS, WORDS, WORDS)), jnp.float32)


def cache_of(table):
    images = len(table)
    return {
        "memory": table,
        "before": jnp.zeros(images, jnp.int32),
        "attention": jnp.zeros((images, 1, 2), jnp.float32),
    }


def step(cache, token):
    """It looks at how many sequences there are of an image, and at the last token."""
    table, before = cache["memory"], cache["before"]
    count = len(token) // len(table)
    image = jnp.repeat(jnp.arange(len(table)), count)
    token = jnp.minimum(token, WORDS - 1)
    looked = jnp.stack([jnp.full(len(token), count), token], 1).astype(jnp.float32)
    new = {"memory": table, "before": token, "attention": looked[:, None]}
    return table[image, before, token], new


def log_probabilities(table, said):
    """Of each token, in NumPy."""
    found, before, last = [], 0, BEGIN
    for token in said:
        logits = np.float64(table[before, last])
        found.append(logits[token] - np.log(np.exp(logits).sum()))
        before, last = last, token
    return found


def sequences(length):
    """All that end, or are as long as can be."""
    for count in range(1, length + 1):
        for said in itertools.product(range(WORDS), repeat=count):
            if END not in said[:-1] and (said[-1] == END or count == length):
                yield said


def shown(tokens, lengths):
    return [tuple(row[:count]) for row, count in zip(np.asarray(tokens).tolist(), lengths)]


def test_greedy_by_hand():
    table = tables(3)
    found = jax.jit(lambda t: decoding.greedy(step, cache_of(t), **SPECIAL, length=6))(table)
    for row, said in enumerate(shown(found.tokens, found.lengths)):
        expected, before, last = [], 0, BEGIN
        while len(expected) < 6 and END not in expected:
            token = int(np.argmax(table[row, before, last]))
            expected.append(token)
            before, last = last, token
        assert said == tuple(expected)
        sums = log_probabilities(table[row], said)
        np.testing.assert_allclose(found.log_probabilities[row, : len(said)], sums, 1e-5)
        np.testing.assert_allclose(found.scores[row], sum(sums), 1e-5)
        assert np.all(found.tokens[row, len(said) :] == PAD)
        assert np.all(found.log_probabilities[row, len(said) :] == 0)
        looked = [(1, token) for token in (BEGIN, *said[:-1])]
        np.testing.assert_array_equal(found.attention[row, : len(said), 0], looked)
        assert np.all(found.attention[row, len(said) :] == 0)
    assert len(set(np.asarray(found.lengths).tolist())) > 1


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_beams_for_all_sequences_find_the_best(penalty):
    table, length = tables(3, seed=1), 3

    @jax.jit
    def search(table):
        return decoding.beam(step, cache_of(table), **SPECIAL, length=length, beams=64,
                             length_penalty=penalty, early_stopping="never")  # fmt: skip

    found = search(table)
    for row in range(3):
        scores = {
            said: sum(log_probabilities(table[row], said)) / len(said) ** penalty
            for said in sequences(length)
        }
        best = max(scores, key=scores.get)
        assert shown(found.tokens, found.lengths)[row] == best
        np.testing.assert_allclose(found.scores[row], scores[best], 1e-5)
        looked = [(64, token) for token in (BEGIN, *best[:-1])]
        np.testing.assert_array_equal(found.attention[row, : len(best), 0], looked)


def test_one_beam_is_greedy():
    table = tables(4, seed=2)
    options = {**SPECIAL, "length": 7, "no_repeat_ngram_size": 2}
    both = jax.jit(
        lambda t: (
            decoding.greedy(step, cache_of(t), **options),
            decoding.beam(step, cache_of(t), **options, beams=1, length_penalty=0.0),
        )
    )
    for one, other in zip(*both(table)):
        np.testing.assert_allclose(one, other, 1e-5)


def drawn(table, samples, seed=0, **options):
    run = jax.jit(
        lambda t, key: decoding.sample(
            step, cache_of(t), key, **SPECIAL, samples=samples, **options
        )
    )
    return run(table, jax.random.key(seed))


def test_frequencies_of_samples():
    table, count = tables(2, seed=3), 20_000
    found = drawn(table, count, length=2, temperature=1.5)
    said = shown(found.tokens, np.asarray(found.lengths))
    for row in range(2):
        mine = said[row * count : (row + 1) * count]
        of_image, statistic, kinds = table[row] / 1.5, 0.0, 0
        for one in sequences(2):
            expected = count * np.exp(sum(log_probabilities(of_image, one)))
            statistic += (mine.count(one) - expected) ** 2 / expected
            kinds += 1
        # A chi-square of that many degrees of freedom has this deviation.
        assert statistic < kinds - 1 + 4 * np.sqrt(2 * (kinds - 1))
    # Their log-probabilities are those of the network, whatever the temperature.
    for place in (0, 1, count, 2 * count - 1):
        expected = log_probabilities(table[place // count], said[place])
        kept = found.log_probabilities[place, : len(said[place])]
        np.testing.assert_allclose(kept, expected, 1e-5)


def test_the_key_decides():
    table = tables(2, seed=4)
    one, again, other = (drawn(table, 9, seed, length=5).tokens for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert np.any(one != other)
    assert len({tuple(row) for row in np.asarray(one[:9]).tolist()}) > 1


def nucleus(logits, k, p):
    """The tokens that may be drawn."""
    order = np.argsort(-np.asarray(logits))[: k or None]
    likelihood = np.exp(np.float64(logits)[order])
    likelihood /= likelihood.sum()
    before = np.cumsum(likelihood) - likelihood
    return set(order[before < p].tolist())


@pytest.mark.parametrize(("k", "p"), [(2, 1.0), (0, 0.7), (3, 0.6), (1, 0.5)])
def test_no_sample_leaves_the_nucleus(k, p):
    table, count = tables(2, seed=5), 2_000
    found = drawn(table, count, length=1, top_k=k, top_p=p)
    for row in range(2):
        said = set(np.asarray(found.tokens[row * count : (row + 1) * count, 0]).tolist())
        assert said == nucleus(table[row, 0, BEGIN], k, p)


def test_truncated_keeps_logits():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(5, 50)), jnp.float32)
    for k, p in ((7, 1.0), (0, 0.8), (20, 0.5)):
        kept = jax.jit(decoding.truncated, static_argnums=(1, 2))(logits, k, p)
        for row in range(5):
            inside = nucleus(logits[row], k, p)
            assert set(np.flatnonzero(np.isfinite(kept[row])).tolist()) == inside
            np.testing.assert_array_equal(kept[row, list(inside)], logits[row, list(inside)])


@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_ngram_is_said_twice(size):
    table = tables(6, seed=6).at[..., END].set(-30.0)  # nobody ends of himself
    options = {**SPECIAL, "length": 3 if size == 1 else 9, "no_repeat_ngram_size": size}

    @jax.jit
    def search(table):
        greedy = decoding.greedy(step, cache_of(table), **options)
        return greedy.tokens, decoding.beam(step, cache_of(table), **options, beams=2).tokens

    for tokens in search(table):
        for row in np.asarray(tokens).tolist():
            said = [BEGIN, *row]
            said = said[: said.index(END) + 1] if END in said else said
            ngrams = [tuple(said[i : i + size]) for i in range(len(said) - size + 1)]
            assert len(ngrams) == len(set(ngrams))
    plain = decoding.greedy(step, cache_of(table), **{**options, "no_repeat_ngram_size": 0}).tokens
    assert np.any(plain != search(table)[0])


def test_loops_end_with_the_last_sequence():
    calls = []

    def counted(cache, token):
        jax.debug.callback(lambda: calls.append(1))
        return step(cache, token)

    table = tables(2).at[..., END].set(30.0)
    for run in (
        lambda t: decoding.greedy(counted, cache_of(t), **SPECIAL, length=50),
        lambda t: decoding.beam(
            counted, cache_of(t), **SPECIAL, length=50, beams=1, early_stopping=True
        ),
    ):
        calls.clear()
        jax.block_until_ready(jax.jit(run)(table))
        jax.effects_barrier()
        assert len(calls) == 1


def test_wrong_settings():
    cache, key = cache_of(tables(1)), jax.random.key(0)
    with pytest.raises(UserError, match="length=0"):
        decoding.greedy(step, cache, **SPECIAL, length=0)
    with pytest.raises(UserError, match="beams=0"):
        decoding.beam(step, cache, **SPECIAL, length=3, beams=0)
    for options, message in (
        ({"temperature": 0.0}, "temperature=0.0 .* `greedy`"),
        ({"top_k": -1}, "top_k=-1"),
        ({"top_p": 0.0}, "top_p=0.0"),
        ({"top_p": 1.5}, "top_p=1.5"),
        ({"samples": 0}, "samples=0"),
    ):
        with pytest.raises(UserError, match=message):
            decoding.sample(step, cache, key, **SPECIAL, length=3, **options)
