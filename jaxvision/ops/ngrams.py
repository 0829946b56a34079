"""N-grams of tokens: CIDEr-D of many captions at once, as a reward in training.

Vedantam et al., CIDEr: Consensus-based Image Description Evaluation, 2015,
https://arxiv.org/abs/1411.5726; Rennie et al., Self-critical Sequence Training for Image
Captioning, 2017, https://arxiv.org/abs/1612.00563. `jaxvision.metrics.captioning` has the same of
texts.

N-grams of two captions are compared token by token. In how many images they occur is looked up by a
hash of 32 bits: where a million are stored, another meets one of them once in 4,000 times.
"""

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

ORDER = 4  # the longest n-grams that are counted
_SIGMA = 6.0  # of the penalty on a difference in length


class Frequencies(NamedTuple):
    """In the captions of how many images n-grams occur.

    Attributes:
      documents: how many images there are.
      hashes: of n-grams, ascending.
      counts: of images; what has no hash here occurs in one or none.
    """

    documents: Float[Array, ""] | Int[Array, ""] | float | int
    hashes: UInt32[Array | np.ndarray, " m"]
    counts: Int[Array | np.ndarray, " m"] | UInt32[Array | np.ndarray, " m"]


def hashes(
    tokens: Int[Array | np.ndarray, "*b t"], n: int
) -> UInt32[Array | np.ndarray, "*b windows"]:
    """A hash of the `n` tokens from each place on, where there are so many.

    Of arrays of the device or of NumPy. Each token goes through Wellons' lowbias32
    (https://nullprogram.com/blog/2018/07/31/).
    """
    windows = max(tokens.shape[-1] - n + 1, 0)
    numbers: Any = tokens.astype(np.uint32)
    found: Any = numbers[..., :windows] * np.uint32(0) + np.uint32(n)  # so that lengths differ
    for place in range(n):
        found = found * np.uint32(0x9E3779B1) + numbers[..., place : place + windows]
        found = (found ^ (found >> 16)) * np.uint32(0x7FEB352D)
        found = (found ^ (found >> 15)) * np.uint32(0x846CA68B)
        found = found ^ (found >> 16)
    return found


def lengths_before(tokens: Int[Array, "*b t"], end: int) -> Int[Array, "*b"]:
    """How many tokens stand before the first `end`; all of them where there is none."""
    ends = tokens == end
    return jnp.where(ends.any(-1), ends.argmax(-1), tokens.shape[-1]).astype(jnp.int32)


def cider_d(
    candidates: Int[Array, "b t"],
    lengths: Int[Array, " b"],
    references: Int[Array, "b n u"],
    reference_lengths: Int[Array, "b n"],
    valid: Bool[Array, "b n"],
    frequencies: Frequencies,
) -> Float[Array, " b"]:
    """CIDEr-D of each candidate, 0 to 10; 0 of one without references.

    Args:
      candidates: tokens, neither begin nor end among those that count.
      lengths: how many of them count, from the first on.
      references, reference_lengths: alike.
      valid: which references there are.
      frequencies: of the captions that n-grams are weighted by.
    """
    total = jnp.zeros(valid.shape)
    for n in range(1, min(ORDER, candidates.shape[-1], references.shape[-1]) + 1):
        here = _within(candidates, lengths, n)
        there = _within(references, reference_lengths, n)
        times = _count(candidates, candidates, here, n)
        times_there = _count(references, references, there, n)
        found = _count(candidates[:, None], references, there, n)  # [b, n, windows of candidates]
        squared, squared_there = (
            jnp.square(_rarity(tokens, n, frequencies)) * counted
            for tokens, counted in ((candidates, here), (references, there))
        )
        norm = jnp.sqrt((times * squared).sum(-1))[:, None] * jnp.sqrt(
            (times_there * squared_there).sum(-1)
        )
        # An n-gram is summed over as often as it occurs.
        each = (squared / jnp.maximum(times, 1))[:, None]
        product = (each * jnp.minimum(times[:, None], found) * found).sum(-1)
        total += product / jnp.where(norm > 0, norm, 1)
    delta = jnp.maximum(lengths - 1, 0)[:, None] - jnp.maximum(reference_lengths - 1, 0)
    penalty = jnp.exp(-jnp.square(delta) / (2 * _SIGMA**2))
    mean = (total * penalty * valid).sum(-1) / jnp.maximum(valid.sum(-1), 1)
    return 10 * mean / ORDER


def _within(tokens: Int[Array, "*b t"], lengths: Int[Array, "*b"], n: int) -> Bool[Array, "*b w"]:
    """At which places an n-gram begins that ends within the length."""
    return jnp.arange(n, tokens.shape[-1] + 1) <= lengths[..., None]


def _count(
    one: Int[Array, "*b t"], other: Int[Array, "*c u"], counted: Bool[Array, "*c v"], n: int
) -> Int[Array, "*c w"]:
    """How often the n-gram from each place of one on is among those of the other that count."""
    rows, columns = one.shape[-1] - n + 1, other.shape[-1] - n + 1
    alike = one[..., :, None] == other[..., None, :]
    parts = (alike[..., k : k + rows, k : k + columns] for k in range(n))
    return (functools.reduce(jnp.logical_and, parts) & counted[..., None, :]).sum(-1)


def _rarity(tokens: Int[Array, "*b t"], n: int, frequencies: Frequencies) -> Float[Array, "*b w"]:
    """The logarithm of how many documents there are for each in which an n-gram occurs."""
    documents, known, counts = map(jnp.asarray, frequencies)
    among = jnp.ones((), jnp.float32)
    if known.size:
        wanted = hashes(tokens, n)
        place = jnp.minimum(jnp.searchsorted(known, wanted), known.size - 1)
        among = jnp.where(known[place] == wanted, counts[place].astype(jnp.float32), 1)
    scale = jnp.log(documents.astype(jnp.float32)) - jnp.log(jnp.maximum(among, 1))
    return jnp.broadcast_to(scale, (*tokens.shape[:-1], tokens.shape[-1] - n + 1))
