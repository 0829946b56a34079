"""Keys whose bits are JAX's, in the form for CPUs and the other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvision.ops import random


def equal(draw, seed: int = 0) -> None:
    ours, jaxs = draw(random.key(seed)), draw(jax.random.key(seed))
    if jnp.issubdtype(ours.dtype, jax.dtypes.prng_key):
        ours, jaxs = jax.random.key_data(ours), jax.random.key_data(jaxs)
    assert ours.dtype == jaxs.dtype
    np.testing.assert_array_equal(ours, jaxs)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(0, 5), max_size=3),
    st.sampled_from(["uint8", "uint16", "uint32"]),
)
def test_bits_are_those_of_jax(seed, shape, dtype):
    equal(lambda key: jax.random.bits(key, tuple(shape), dtype), seed)


@pytest.mark.parametrize(
    "draw",
    [
        lambda key: key,
        lambda key: jax.random.split(key, (2, 3)),
        lambda key: jax.random.fold_in(key, 123_456_789),
        lambda key: jax.jit(jax.random.fold_in)(key, jnp.int32(-1)),
        lambda key: jax.random.truncated_normal(key, -2.0, 2.0, (40, 50)),
        lambda key: jax.random.bernoulli(key, 0.3, (1000,)),
        lambda key: jax.vmap(lambda k: jax.random.permutation(k, 10))(jax.random.split(key, 4)),
    ],
)
def test_everything_drawn_is_as_jax_draws_it(draw):
    equal(draw, seed=7)


def test_64_bits_are_those_of_jax():
    with jax.enable_x64(True):
        equal(lambda key: jax.random.bits(key, (33,), "uint64"))


def test_the_form_of_other_platforms_is_the_same():
    key = jax.random.key_data(random.key(3))
    for width in (8, 16, 32):
        here, there = (form(width, (4, 5), key) for form in (random._bits_on_cpu, random._bits))
        np.testing.assert_array_equal(here, there)


def test_known_answer():
    """The first vector of the authors' `kat_vectors`: a key and a counter of zeros."""
    zeros = jnp.zeros(2, jnp.uint32)
    left, right = random.threefry(zeros, zeros[:1], zeros[:1])
    assert (int(left[0]), int(right[0])) == (0x6B200159, 0x99BA4EFE)
