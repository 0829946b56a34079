"""Heat maps of objects' centres: Gaussian spots as wide as their objects allow, and their maxima.

Zhou et al., Objects as Points, 2019, https://arxiv.org/abs/1904.07850; the radius is that of Law
and Deng, CornerNet, 2018, https://arxiv.org/abs/1808.01244, as its code computes it. Reference:
mmdetection's `gaussian_target.py`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxvision.ops.pooling import max_pool2d


def spot_radius(size: Float[Array, "*b 2"], overlap: float) -> Int[Array, "*b"]:
    """How far corners of a box may be off so that it still overlaps the true one enough.

    The least of three: one corner moved inwards and one outwards, both inwards, both outwards.

    Args:
      size: width and height of the true box.
      overlap: intersection over union.
    """
    total, area = size.sum(-1), size.prod(-1)

    def root(a: int, b: Array, c: Array) -> Array:
        return (b - jnp.sqrt(jnp.maximum(b**2 - 4 * a * c, 0))) / (2 * a)

    mixed = root(1, total, area * (1 - overlap) / (1 + overlap))
    inner = root(4, 2 * total, (1 - overlap) * area)
    b = 2 * overlap * total
    c = (overlap - 1) * area
    outer = (jnp.sqrt(b**2 - 16 * overlap * c) - b) / (8 * overlap)
    return jnp.maximum(jnp.minimum(jnp.minimum(mixed, inner), outer), 0).astype(jnp.int32)


def spots(
    cells: Int[Array, "b g 2"],
    radius: Int[Array, "b g"],
    channel: Int[Array, "b g"],
    valid: Bool[Array, "b g"],
    shape: Sequence[int],
) -> Float[Array, "b h w k"]:
    """A map with a Gaussian about each cell, 1 there and cut off at the radius; the higher wins.

    Args:
      cells: (column, row).
      radius: of each; a Gaussian has a standard deviation of (2 radius + 1) / 6.
      channel: in which each is drawn.
      valid: which are drawn.
      shape: (h, w, k) of the map.
    """
    height, width, channels = shape

    def along(places: Array, radius: Array, length: int) -> Array:
        away = jnp.arange(length) - places[..., None]
        sigma = (2 * radius[..., None] + 1) / 6
        return jnp.where(
            jnp.abs(away) <= radius[..., None], jnp.exp(-(away**2) / (2 * sigma**2)), 0
        )

    rows = along(cells[..., 1], radius, height) * valid[..., None]
    columns = along(cells[..., 0], radius, width)
    drawn = rows[..., :, None] * columns[..., None, :]

    def image(drawn: Array, channel: Array) -> Array:
        empty = jnp.zeros((channels, height, width), drawn.dtype)
        return jnp.moveaxis(empty.at[channel].max(drawn), 0, -1)

    return jax.vmap(image)(drawn, channel)


def local_maxima(x: Float[Array, "b h w k"], size: int = 3) -> Float[Array, "b h w k"]:
    """The map where it is the highest of its neighbourhood of `size` x `size`, else 0."""
    return jnp.where(max_pool2d(x, size, stride=1, padding=size // 2) == x, x, 0)
