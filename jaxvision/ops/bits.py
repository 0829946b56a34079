"""Masks as bits: eight pixels a byte, the first one highest, as `numpy.packbits` has them."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, UInt8


def pack(mask: Bool[Array, "*b w"]) -> UInt8[Array, "*b p"]:
    """The bits of the last axis; those that fill up the last byte are 0."""
    return jnp.packbits(mask, axis=-1)


def unpack(bits: UInt8[Array, "*b p"], width: int) -> Bool[Array, "*b w"]:
    """The inverse of `pack`, of `width` pixels."""
    return jnp.unpackbits(bits, axis=-1, count=width).astype(bool)
