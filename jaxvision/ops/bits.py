"""Masks as bits: eight pixels of a row are a byte, the first its highest bit (`np.packbits`)."""

import functools

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int, UInt8


def pack(mask: Bool[Array, "*b w"]) -> UInt8[Array, "*b p"]:
    """The bits of masks, ceil(w / 8) bytes a row; those behind the last pixel are 0."""
    return jnp.packbits(mask, axis=-1)


def unpack(bits: UInt8[Array, "*b p"], width: int) -> Bool[Array, "*b w"]:
    """The first `width` pixels of each row of bits."""
    return jnp.unpackbits(bits, axis=-1, count=width).astype(bool)


def count(bits: UInt8[Array, "*b h p"]) -> Int[Array, "*b"]:
    """How many pixels masks have."""
    return lax.population_count(bits).astype(jnp.int32).sum((-2, -1))


def planes(bits: UInt8[Array, "*b n h p"], width: int) -> UInt8[Array, "*b q h w"]:
    """n masks as ceil(n / 8) maps, each pixel of which says in which of eight masks it is.

    So what moves pixels moves eight masks at once, and no mask has a byte a pixel on the way. The
    first mask is the highest bit.

    Args:
      bits: of the masks, see `pack`.
      width: of the masks.
    """
    *batch, count, height, length = bits.shape
    pad = [(0, 0)] * len(batch) + [(0, -count % 8), (0, 0), (0, 0)]
    eights = jnp.pad(bits, pad).reshape(*batch, -1, 8, height, length, 1)
    places = jnp.arange(7, -1, -1, dtype=jnp.uint8)
    bits_of = (((eights[..., k, :, :, :] >> places) & 1) << (7 - k) for k in range(8))
    maps = functools.reduce(jnp.bitwise_or, bits_of)
    return maps.reshape(*batch, -1, height, 8 * length)[..., :width]


def from_planes(planes: UInt8[Array, "*b q h w"], count: int) -> UInt8[Array, "*b n h p"]:
    """The bits of the first `count` masks of what `planes` gives."""
    *batch, _, height, width = planes.shape
    pad = [(0, 0)] * (planes.ndim - 1) + [(0, -width % 8)]
    eights = jnp.pad(planes, pad).reshape(*planes.shape[:-1], -1, 8)
    masks = [
        functools.reduce(
            jnp.bitwise_or, (((eights[..., i] >> (7 - k)) & 1) << (7 - i) for i in range(8))
        )
        for k in range(8)
    ]
    return jnp.stack(masks, -3).reshape(*batch, -1, height, eights.shape[-2])[..., :count, :, :]
