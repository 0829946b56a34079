"""Images as colours of a palette, pixel after pixel, row by row."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int


def nearest_colours(
    pixels: Float[Array, "b h w c"], palette: Float[Array, "k c"]
) -> Int[Array, "b n"]:
    """The number of the colour that is nearest to each pixel; of equals the first."""
    flat = pixels.reshape(pixels.shape[0], -1, pixels.shape[-1])
    product = jnp.matmul(flat, palette.T, precision=lax.Precision.HIGHEST)
    return jnp.argmin(jnp.square(palette).sum(-1) - 2 * product, -1).astype(jnp.int32)


def coloured(
    colours: Int[Array, "b n"], palette: Float[Array, "k c"], size: tuple[int, int]
) -> Float[Array, "b h w c"]:
    """The images of colours, of `size` (height, width)."""
    return palette[colours].reshape(colours.shape[0], *size, -1)
