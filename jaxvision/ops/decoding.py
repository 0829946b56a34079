"""Decoding: sequences of tokens of a network that scores the next one; greedy, beam, sampling.

The network is a function `step(cache, token) -> (logits, cache)`: tokens [b] and whatever it
remembers, a dict of arrays whose first axis is the batch's. Two of its entries are special:

- `memory` is what steps only read, of the image. It is never copied: where an image has several
  sequences (beams, samples), the other entries have b * n rows, those of an image beside each
  other, and `memory` still has b.
- `attention` [b, h, w] is what the last step looked at; it is collected, step by step.

All shapes are static, and a loop ends when all sequences have. To be jitted with the network:

    @jax.jit
    def captions(variables, image):
        memory = model.apply(variables, image, method="encode")
        cache = model.apply(variables, memory, 20, method="start")
        step = partial(model.apply, variables, method="step")
        return beam(step, cache, begin=1, end=2, pad=0, length=20, beams=4)

Begin, end and padding may be one token, as GPT-2's are: a sequence ends at the first end that the
network gives. Nothing here has a gradient; score what was found by the network once more.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

from jaxvision.errors import UserError

Cache = dict[str, Any]
Token = int | Int[Array, ""]
Given = Int[Array, "b t"]
Step = Callable[[Cache, Int[Array, " b"]], tuple[Float[Array, "b v"], Cache]]

# What no sequence may become is lowered by this, so that it stays finite; as in transformers.
_NEVER = -1e9


class Decoded(NamedTuple):
    """Sequences without the begin; after an end there is padding.

    Attributes:
      tokens: what was said, the end included if there is one.
      log_probabilities: of each token under the network, before any truncation; 0 of padding.
      lengths: how many tokens there are before the padding.
      scores: what was compared: the sum of the log-probabilities, of beams over a power of the
        length.
      attention: what the network looked at for each token, 0 for padding; None if it does not say.
    """

    tokens: Int[Array, "b t"]
    log_probabilities: Float[Array, "b t"]
    lengths: Int[Array, " b"]
    scores: Float[Array, " b"]
    attention: Float[Array, "b t h w"] | None


def greedy(
    step: Step,
    cache: Cache,
    *,
    begin: Token,
    end: Token,
    pad: Token,
    length: int,
    no_repeat_ngram_size: int = 0,
    given: Given | None = None,
) -> Decoded:
    """The likeliest token at each step.

    Args:
      step, cache: see above; the cache is one that nothing was said to.
      begin: the token that is given first.
      end: the token after which a sequence ends.
      pad: the token behind it.
      length: tokens of a sequence at most, the end included.
      no_repeat_ngram_size: no n-gram of this size, the begin counted, is said twice; 0 allows all.
      given: what is said whatever the network would say, [b, length]; -1 where it chooses.

    Raises:
      UserError: no length.
    """
    _require(length > 0, f"length={length}: a sequence has one token or more.")

    choose = _given(lambda scores, time: scores.argmax(-1), given)
    return _one_by_one(step, cache, choose, begin, end, pad, length, no_repeat_ngram_size)


def sample(
    step: Step,
    cache: Cache,
    key: Key[Array, " *rows"],
    *,
    begin: Token,
    end: Token,
    pad: Token,
    length: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    samples: int = 1,
    no_repeat_ngram_size: int = 0,
    given: Given | None = None,
) -> Decoded:
    """Tokens drawn at random.

    The logits are divided by the temperature, then the `top_k` likeliest stay (Fan et al. 2018,
    https://arxiv.org/abs/1805.04833), then of these the nucleus (Holtzman et al. 2019,
    https://arxiv.org/abs/1904.09751): the fewest whose probabilities add up to `top_p`.

    Args:
      step, cache, begin, end, pad, length, no_repeat_ngram_size, given: see `greedy`.
      key: decides all draws; or keys, one for each sequence.
      temperature: below 1 likely tokens become likelier.
      top_k: how many tokens are drawn among; 0 is all.
      top_p: the probability of the nucleus; 1 is all.
      samples: how many sequences of each image; they lie beside each other.

    Raises:
      UserError: a setting that nothing can be drawn by.
    """
    _require(length > 0, f"length={length}: a sequence has one token or more.")
    _require(samples > 0, f"samples={samples}: an image has one sample or more.")
    _require(temperature > 0, f"temperature={temperature} is not above 0; `greedy` is the limit.")
    _require(top_k >= 0, f"top_k={top_k} is not a number of tokens; 0 is all.")
    _require(0 < top_p <= 1, f"top_p={top_p} is no probability above 0; 1 is all tokens.")

    def choose(scores: Array, time: Array) -> Array:
        kept = truncated(scores / temperature, top_k, top_p)
        draw = lambda key, kept: jax.random.categorical(jax.random.fold_in(key, time), kept)  # noqa: E731
        return (jax.vmap(draw) if key.ndim else draw)(key, kept)

    several, choose = _several(cache, samples), _given(choose, given)
    return _one_by_one(step, several, choose, begin, end, pad, length, no_repeat_ngram_size)


def _given(choose: Callable[[Array, Array], Array], given: Given | None) -> Callable[..., Array]:
    """Chooses where nothing is given."""
    if given is None:
        return choose

    def chosen(scores: Array, time: Array) -> Array:
        return jnp.where(given[:, time] >= 0, given[:, time], choose(scores, time))

    return chosen


def truncated(
    logits: Float[Array, "b v"], top_k: int = 0, top_p: float = 1.0
) -> Float[Array, "b v"]:
    """Logits that are -inf but for the `top_k` highest and, of these, the nucleus of `top_p`."""
    if 0 < top_k < logits.shape[-1]:
        least = lax.top_k(logits, top_k)[0][:, -1:]
        logits = jnp.where(logits < least, -jnp.inf, logits)
    if top_p < 1:
        falling = -jnp.sort(-logits)
        likelihood = jax.nn.softmax(falling)
        inside = jnp.cumsum(likelihood, -1) - likelihood < top_p
        least = jnp.where(inside, falling, jnp.inf).min(-1, keepdims=True)
        logits = jnp.where(logits < least, -jnp.inf, logits)
    return logits


def _one_by_one(
    step: Step,
    cache: Cache,
    choose: Callable[[Array, Array], Array],
    begin: Token,
    end: Token,
    pad: Token,
    length: int,
    ngram: int,
) -> Decoded:
    """Each sequence by itself; `choose(log-probabilities, time)` gives its next token."""
    rows = _own(cache)[0].shape[0]
    attention = cache.get("attention")

    def advance(state: tuple) -> tuple:
        time, cache, said, likelihood, seen, done = state
        logits, cache = step(cache, said[:, time])
        found = jax.nn.log_softmax(logits.astype(jnp.float32))
        scores = _without_repeats(found, said, time + 1, ngram)
        token = choose(scores, time).astype(jnp.int32)
        chosen = jnp.take_along_axis(found, token[:, None], 1)[:, 0]
        said = said.at[:, time + 1].set(jnp.where(done, pad, token))
        likelihood = likelihood.at[:, time].set(jnp.where(done, 0.0, chosen))
        if seen is not None:
            looked = jnp.where(done[:, None, None], 0.0, cache["attention"])
            seen = seen.at[:, time].set(looked)
        return time + 1, cache, said, likelihood, seen, done | (token == end)

    said = jnp.full((rows, length + 1), pad, jnp.int32).at[:, 0].set(begin)
    likelihood = jnp.zeros((rows, length), jnp.float32)
    seen = None if attention is None else _history(attention, length)
    state = (jnp.int32(0), cache, said, likelihood, seen, jnp.zeros(rows, bool))
    state = lax.while_loop(lambda s: (s[0] < length) & ~s[-1].all(), advance, state)
    _, _, said, likelihood, seen, _ = state
    tokens = said[:, 1:]
    return Decoded(tokens, likelihood, _lengths(tokens, end), likelihood.sum(-1), seen)


class _Sequences(NamedTuple):
    """Several of each image, from the best on. Attributes: [b, n, ...], see `Decoded`."""

    tokens: Array  # the begin is the first
    likelihood: Array
    attention: Array | None
    score: Array
    ended: Array

    def take(self, index: Int[Array, "b m"]) -> "_Sequences":
        return jax.tree.map(lambda x: _take(x, index), self)

    def best(self, count: int) -> "_Sequences":
        return self.take(lax.top_k(self.score, count)[1])


def beam(
    step: Step,
    cache: Cache,
    *,
    begin: Token,
    end: Token,
    pad: Token,
    length: int,
    beams: int,
    length_penalty: float = 1.0,
    early_stopping: bool | Literal["never"] = False,
    no_repeat_ngram_size: int = 0,
) -> Decoded:
    """The best sequence of a beam search, as `generate` of transformers 5 finds it.

    A sequence's score is the sum of its log-probabilities over `n_tokens ** length_penalty`.

    Args:
      step, cache, begin, end, pad, length, no_repeat_ngram_size: see `greedy`.
      beams: sequences of an image that are followed.
      length_penalty: above 0 long sequences are preferred, below 0 short ones.
      early_stopping: when an image is done. True: as many sequences have ended as there are beams.
        False: none that is followed would have a better score if it ended now. "never": none could
        get one, which is a true beam search.

    Raises:
      UserError: no beams or no length, or no such rule of stopping.
    """
    _require(length > 0, f"length={length}: a sequence has one token or more.")
    _require(beams > 0, f"beams={beams}: one sequence or more is followed.")
    if early_stopping not in (False, True, "never"):
        raise UserError(f"early_stopping={early_stopping!r} is none of False, True and 'never'.")
    rows = _own(cache)[0].shape[0]
    attention = cache.get("attention")

    def penalised(score: Array, count: int | Array) -> Array:
        return score / jnp.float32(count) ** length_penalty

    def advance(state: tuple) -> tuple:
        time, cache, live, found, hopeful = state
        logits, cache = step(cache, live.tokens[:, :, time].reshape(-1))
        likelihood = jax.nn.log_softmax(logits.astype(jnp.float32))
        said = live.tokens.reshape(rows * beams, -1)
        likelihood = _without_repeats(likelihood, said, time + 1, no_repeat_ngram_size)
        score, parent, token = _continuations(likelihood.reshape(rows, beams, -1), live.score)
        new = live.take(parent)._replace(score=score, ended=(token == end) | (time + 1 == length))
        chosen = likelihood.reshape(rows, beams, -1)[jnp.arange(rows)[:, None], parent, token]
        new = new._replace(
            tokens=new.tokens.at[:, :, time + 1].set(token),
            likelihood=new.likelihood.at[:, :, time].set(chosen),
        )
        if attention is not None:
            looked = cache["attention"].reshape(rows, beams, *attention.shape[1:])
            new = new._replace(attention=new.attention.at[:, :, time].set(_take(looked, parent)))

        # What goes on; then what has ended, of which only the best candidates may enter.
        lowered = score + jnp.where(new.ended, _NEVER, 0.0)
        goes_on = lax.top_k(lowered, beams)[1]
        full = found.ended.all(-1, keepdims=True) & (early_stopping is True)
        enters = new.ended & (jnp.arange(2 * beams) < beams)
        final = penalised(score, time + 1)
        for barred in (full, ~hopeful[:, None], ~enters):
            final += jnp.where(barred, _NEVER, 0.0)
        candidates = new._replace(score=final, ended=enters)
        found = jax.tree.map(lambda *x: jnp.concatenate(x, 1), found, candidates).best(beams)
        live = new._replace(score=lowered).take(goes_on)
        cache = _reordered(cache, _take(parent, goes_on))

        never = early_stopping == "never" and length_penalty > 0
        best = penalised(live.score[:, :1], length if never else time + 1)
        worst = jnp.where(found.ended, found.score.min(-1, keepdims=True), _NEVER)
        return time + 1, cache, live, found, hopeful & (best > worst).any(-1)

    def goes_on(state: tuple) -> Array:
        time, _, _, found, hopeful = state
        return (time < length) & hopeful.any() & ~(found.ended.all() & (early_stopping is True))

    start = _Sequences(
        jnp.full((rows, beams, length + 1), pad, jnp.int32).at[:, :, 0].set(begin),
        jnp.zeros((rows, beams, length), jnp.float32),
        None if attention is None else _alike(_history(attention, length), beams),
        jnp.tile(jnp.where(jnp.arange(beams) > 0, jnp.float32(_NEVER), 0.0), (rows, 1)),
        jnp.zeros((rows, beams), bool),
    )
    nothing = start._replace(score=jnp.full((rows, beams), _NEVER, jnp.float32))
    hopeful = jnp.ones(rows, bool)
    state = (jnp.int32(0), _several(cache, beams), start, nothing, hopeful)
    found = lax.while_loop(goes_on, advance, state)[3]
    tokens = found.tokens[:, 0, 1:]
    seen = None if found.attention is None else found.attention[:, 0]
    likelihood, score = found.likelihood[:, 0], found.score[:, 0]
    return Decoded(tokens, likelihood, _lengths(tokens, end), score, seen)


def _continuations(
    likelihood: Float[Array, "b n v"], score: Float[Array, "b n"]
) -> tuple[Float[Array, "b m"], Int[Array, "b m"], Int[Array, "b m"]]:
    """The 2 n best of n sequences and a token: (score, sequence, token), from the best on."""
    rows, beams, words = likelihood.shape
    # Of each sequence first: selecting among fewer numbers is faster.
    scores, tokens = lax.top_k(likelihood, min(2 * beams, words))
    scores = (scores + score[..., None]).reshape(rows, -1)
    best, place = lax.top_k(scores, 2 * beams)
    token = jnp.take_along_axis(tokens.reshape(rows, -1), place, 1)
    return best, place // tokens.shape[-1], token.astype(jnp.int32)


def _without_repeats(
    scores: Float[Array, "n v"], said: Int[Array, "n t"], count: Array, size: int
) -> Float[Array, "n v"]:
    """-inf for tokens that would complete an n-gram of the first `count` tokens again."""
    if not 0 < size <= said.shape[1]:
        return scores
    starts = jnp.arange(said.shape[1] - size + 1)
    ngrams = said[:, starts[:, None] + jnp.arange(size)]
    last = said[:, jnp.maximum(count - size + 1, 0) + jnp.arange(size - 1)]
    same = (ngrams[..., :-1] == last[:, None]).all(-1) & (starts + size <= count)
    rows = jnp.arange(said.shape[0])[:, None]
    return scores.at[rows, ngrams[..., -1]].min(jnp.where(same, -jnp.inf, jnp.inf))


def _own(cache: Cache) -> list[Array]:
    """What a sequence has of its own."""
    return jax.tree.leaves({name: value for name, value in cache.items() if name != "memory"})


def _mapped(cache: Cache, change: Callable[[Array], Array]) -> Cache:
    """A cache in which what a sequence has of its own is changed."""
    return {
        name: value if name == "memory" else jax.tree.map(change, value)
        for name, value in cache.items()
    }


def _several(cache: Cache, count: int) -> Cache:
    return _mapped(cache, lambda x: jnp.repeat(x, count, 0)) if count > 1 else cache


def _reordered(cache: Cache, parent: Int[Array, "b n"]) -> Cache:
    """A cache whose sequences continue those of the given numbers, of the same image."""
    rows, count = parent.shape
    index = (parent + count * jnp.arange(rows)[:, None]).reshape(-1)
    return _mapped(cache, lambda x: x[index])


def _take(x: Array, index: Int[Array, "b m"]) -> Array:
    return x[jnp.arange(x.shape[0])[:, None], index]


def _history(x: Array, length: int) -> Array:
    """[b, ...] to zeros [b, length, ...]."""
    return jnp.zeros((x.shape[0], length, *x.shape[1:]), x.dtype)


def _alike(x: Array, count: int) -> Array:
    """[b, ...] to [b, count, ...]."""
    return jnp.repeat(x[:, None], count, 1)


def _lengths(tokens: Int[Array, "b t"], end: Token) -> Int[Array, " b"]:
    """Up to the first end, that included."""
    ends = tokens == end
    return jnp.where(ends.any(-1), ends.argmax(-1) + 1, tokens.shape[-1]).astype(jnp.int32)


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise UserError(otherwise)
