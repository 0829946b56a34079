"""Heat maps of key points: drawn, read, and mirrored.

Points are (x, y) in pixels of the heat maps, where pixel i covers the interval [i, i + 1), so that
a point times the image's side over the heat map's is the point in the image.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float


def gaussians(
    points: Float[Array, "*b k 2"], size: Sequence[int], sigma: float
) -> Float[Array, "*b h w k"]:
    """A Gaussian of height 1 about each point, which need not be a pixel's centre.

    Newell et al., Stacked Hourglass Networks, 2016, https://arxiv.org/abs/1603.06937, section 3.2,
    whose code moves it to the nearest pixel and cuts it off at 3 sigma.

    Args:
      points: anywhere; outside of the map only a tail of the Gaussian is in it.
      size: height and width of the maps.
      sigma: standard deviation, in pixels of the maps.
    """
    height, width = size

    def along(places: Array, length: int) -> Array:
        away = jnp.arange(length, dtype=jnp.float32)[:, None] + 0.5 - places[..., None, :]
        return jnp.exp(-jnp.square(away) / (2 * sigma**2))

    rows, columns = along(points[..., 1], height), along(points[..., 0], width)
    return rows[..., :, None, :] * columns[..., None, :, :]


def decode(heatmaps: Float[Array, "*b h w k"]) -> Float[Array, "*b k 3"]:
    """(x, y, score) of each map: its highest pixel, a quarter of a pixel towards what is high.

    The rule of Newell's code: from the centre of the highest pixel a quarter of a pixel to the
    higher of its two neighbours in the row, and alike in the column; a pixel on the map's border
    stays as it is. Of equally high pixels the first one counts, row by row.

    Args:
      heatmaps: of any scale.

    Returns:
      float32; the score is the highest value.
    """
    *batch, height, width, count = heatmaps.shape
    maps = jnp.moveaxis(heatmaps.astype(jnp.float32), -1, -3).reshape(*batch, count, height * width)
    place = maps.argmax(-1)
    row, column = place // width, place % width

    def higher(step: int) -> Array:
        """-1, 0 or 1: towards which neighbour, `step` places before or behind, the map is higher.

        On the border there may be none; what is then read is not used.
        """
        sides = [jnp.clip(place + s * step, 0, height * width - 1)[..., None] for s in (-1, 1)]
        before, behind = (jnp.take_along_axis(maps, side, -1)[..., 0] for side in sides)
        return jnp.sign(behind - before)

    inner = (row > 0) & (row < height - 1) & (column > 0) & (column < width - 1)
    x, y = column + 0.5 + 0.25 * higher(1) * inner, row + 0.5 + 0.25 * higher(width) * inner
    return jnp.stack([x, y, maps.max(-1)], axis=-1)


def flip(heatmaps: Float[Array, "*b h w k"], order: Sequence[int]) -> Float[Array, "*b h w k"]:
    """The heat maps of a mirrored image as of the image, left and right key points exchanged.

    Args:
      heatmaps: of the image mirrored left to right.
      order: the permutation of key points that exchanges left and right ones.
    """
    return heatmaps[..., ::-1, jnp.asarray(order)]
