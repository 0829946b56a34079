"""Random keys with JAX's own bits, which CPUs compute several times faster.

On CPUs JAX computes Threefry as a loop over its rounds that goes through memory each time. Here the
rounds are one expression, which the compiler keeps in registers. The bits are those of
`jax.random.key(seed)` with `jax_threefry_partitionable` (JAX's default), so that they depend
neither on the platform nor on how many devices share an array.
`dropout` in benchmarks/ops.py measures them.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011,
https://doi.org/10.1145/2063384.2063405.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.random import define_prng_impl
from jaxtyping import Array, PRNGKeyArray, UInt32

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
_IMPLEMENTATION = "threefry2x32"


def key(seed: int | UInt32[Array, ""]) -> PRNGKeyArray:
    """The key of a seed, as `jax.random.key`, for all of `jax.random`."""
    return jax.random.key(seed, impl=_SPEC)


def threefry(
    key: UInt32[Array, "2"], high: UInt32[Array, "*n"], low: UInt32[Array, "*n"]
) -> tuple[UInt32[Array, "*n"], UInt32[Array, "*n"]]:
    """Threefry-2x32 of 20 rounds: the two words of each counter, encrypted by the key."""
    words = [jnp.uint32(word) for word in (key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(_PARITY))]
    left, right = high + words[0], low + words[1]
    for group in range(5):
        for bits in _ROTATIONS[group % 2]:
            left = left + right
            right = (right << jnp.uint32(bits)) | (right >> jnp.uint32(32 - bits))
            right = left ^ right
        left = left + words[(group + 1) % 3]
        right = right + words[(group + 2) % 3] + jnp.uint32(group + 1)
    return left, right


def _positions(shape: tuple[int, ...]) -> Array:
    """Each element's position in row-major order, modulo 2**32."""
    positions = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):
        step = math.prod(shape[axis + 1 :])
        positions += jnp.uint32(step % 2**32) * lax.broadcasted_iota(jnp.uint32, shape, axis)
    return positions


def _unrolled(key: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    positions = _positions(shape)
    return threefry(key, jnp.zeros_like(positions), positions)


def _bits_on_cpu(width: int, shape: tuple[int, ...], key: Array) -> Array:
    left, right = _unrolled(key, shape)
    dtype = jnp.dtype(f"uint{width}")
    if width == 64:
        return (left.astype(dtype) << jnp.asarray(32, dtype)) | right.astype(dtype)
    return (left ^ right).astype(dtype)


def _bits(width: int, shape: tuple[int, ...], key: Array) -> Array:
    wrapped = jax.random.wrap_key_data(key, impl=_IMPLEMENTATION)
    return jax.random.bits(wrapped, shape, jnp.dtype(f"uint{width}"))


@partial(jax.jit, static_argnums=(1, 2))
def _random_bits(key: Array, width: int, shape: tuple[int, ...]) -> Array:
    if math.prod(shape) >= 2**32:  # whose counters need their high words
        return _bits(width, shape, key)
    return lax.platform_dependent(
        key, cpu=partial(_bits_on_cpu, width, shape), default=partial(_bits, width, shape)
    )


@partial(jax.jit, static_argnums=1)
def _split(key: Array, shape: tuple[int, ...]) -> Array:
    return jnp.stack(_unrolled(key, shape), -1)


@jax.jit
def _fold_in(key: Array, number: Array) -> Array:
    return jnp.stack(threefry(key, *_seed(jnp.asarray(number).astype(jnp.uint32))))


def _seed(seed: Array) -> Array:
    return jax.random.key_data(jax.random.key(seed, impl=_IMPLEMENTATION))


_SPEC = define_prng_impl(
    key_shape=(2,),
    seed=_seed,
    split=_split,
    random_bits=_random_bits,
    fold_in=_fold_in,
    name="threefry2x32_unrolled",
    tag="unr",
)
