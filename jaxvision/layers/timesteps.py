"""How diffusion networks are told the time."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def timestep_embedding(
    timestep: Int[Array, " b"] | Float[Array, " b"],
    channels: int,
    *,
    endpoint: bool = True,
    cosines_first: bool = False,
    period: float = 10_000.0,
) -> Float[Array, "b c"]:
    """Sines and cosines of the time at falling frequencies, float32.

    Vaswani et al., Attention Is All You Need, 2017, https://arxiv.org/abs/1706.03762.

    Args:
      timestep: of each image.
      channels: an even number.
      endpoint: whether the lowest frequency is 1 / period itself, as in DDPM, or stops one short of
        it, as in DiT.
      cosines_first: whether the cosines are the first half.
      period: ratio of the highest to the lowest frequency.
    """
    if channels % 2:
        raise ValueError(f"Sines and cosines of the time need channels in twos, not {channels}.")
    half = channels // 2
    places = jnp.arange(half, dtype=jnp.float32) / max(1, half - endpoint)
    angles = timestep.astype(jnp.float32)[:, None] * jnp.float32(period) ** -places
    halves = (jnp.cos, jnp.sin) if cosines_first else (jnp.sin, jnp.cos)
    return jnp.concatenate([wave(angles) for wave in halves], axis=-1)


def every_image(timestep: Int[Array, "*b"] | int, images: int) -> Int[Array, " b"]:
    """The timestep of each image, where there may be one for all."""
    return jnp.broadcast_to(jnp.asarray(timestep), (images,))
