"""Superpixels by SLIC, and the graph of regions that touch.

Achanta et al., "SLIC Superpixels Compared to State-of-the-Art Superpixel Methods", 2012,
https://doi.org/10.1109/TPAMI.2012.120. A pixel is compared with the nine centres that began in its
own and the adjacent cells of the grid, as in Ren et al., "gSLICr: SLIC superpixels at over 250Hz",
2015, https://arxiv.org/abs/1509.04232, so that no step scatters.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Num

from jaxvision.errors import UserError

_NEAR = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
_LEAST = 0.25  # of a cell's area; smaller pieces go to a neighbour


def slic(
    image: Float[Array | np.ndarray, "h w c"],
    count: int,
    compactness: float = 10.0,
    iterations: int = 10,
) -> Int[np.ndarray, "h w"]:
    """Connected regions of about equal size and each of about one colour.

    Args:
      image: in a space whose distances count, such as CIELAB (`pixel_features.lab`).
      count: regions wished for; there will be about as many.
      compactness: colour difference that weighs as much as a distance of one cell.
      iterations: of assignments and means.

    Returns:
      Labels from 0 on, none left out, each region connected by its sides.

    Raises:
      UserError: count outside 1 to the number of pixels, or options outside their range.
    """
    height, width = image.shape[:2]
    if not 1 <= count <= height * width:
        raise UserError(
            f"{count} superpixels of {width}x{height} pixels; from 1 to {height * width}."
        )
    if not compactness > 0 or iterations < 1:
        raise UserError(f"compactness={compactness} must be positive, iterations={iterations} too.")
    side = np.sqrt(height * width / count)
    cell = tuple(-(-length // max(round(length / side), 1)) for length in (height, width))
    raw = _slic(jnp.asarray(image, jnp.float32), cell, compactness / side, iterations)
    labels = np.asarray(_joined(raw, int(_LEAST * height * width / count)))
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int32)


@partial(jax.jit, static_argnums=(1, 3))
def _slic(image, cell, scale, iterations):
    """The cell [h w] in which the nearest centre began."""
    height, width, _ = image.shape
    rows, columns = -(-height // cell[0]), -(-width // cell[1])
    places = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij"), -1)
    everything = jnp.concatenate([image - image.mean((0, 1)), places * scale], -1)
    missing = ((0, rows * cell[0] - height), (0, columns * cell[1] - width), (0, 0))

    def tiles(x: Array) -> Array:
        """[h w c] to [cells, c, pixels of a cell]."""
        x = jnp.pad(x, missing).reshape(rows, cell[0], columns, cell[1], -1)
        return x.transpose(0, 2, 4, 1, 3).reshape(rows * columns, x.shape[-1], -1)

    points, real = tiles(everything), tiles(jnp.ones((height, width, 1)))
    extended = jnp.concatenate([points * real, real], 1)

    def shifted(cells: Array, by: tuple[int, int], fill: float) -> Array:
        """What the cell at this offset holds."""
        grid = jnp.pad(
            cells.reshape(rows, columns, -1), ((1, 1), (1, 1), (0, 0)), constant_values=fill
        )
        down, right = 1 + by[0], 1 + by[1]
        return grid[down : down + rows, right : right + columns].reshape(rows * columns, -1)

    def nearest(centers: Array) -> Array:
        """Which of the nine, for each pixel of each cell."""
        best = jnp.full(points[:, 0].shape, jnp.inf)
        which = jnp.zeros(best.shape, jnp.int32)
        for index, offset in enumerate(_NEAR):
            center = shifted(centers, offset, jnp.inf)
            away = jnp.sum((points - center[..., None]) ** 2, 1)
            which = jnp.where(away < best, index, which)
            best = jnp.minimum(away, best)
        return which

    def move(_: Array, centers: Array) -> Array:
        which = nearest(centers)
        member = (which[:, None] == jnp.arange(len(_NEAR))[:, None]).astype(jnp.float32)
        sums = jnp.einsum("gop,gcp->goc", member, extended, precision=lax.Precision.HIGHEST)
        total = jnp.zeros_like(sums[:, 0])
        for index, (dy, dx) in enumerate(_NEAR):
            total += shifted(sums[:, index], (-dy, -dx), 0.0)
        mass = total[:, -1:]
        return jnp.where(mass > 0, total[:, :-1] / jnp.maximum(mass, 1), centers)

    centers = extended[:, :-1].sum(-1) / extended[:, -1:].sum(-1)
    which = nearest(lax.fori_loop(0, iterations, move, centers))
    down, right = jnp.asarray(_NEAR).T
    own = jnp.arange(rows * columns)[:, None]
    labels = own + down[which] * columns + right[which]
    labels = labels.reshape(rows, columns, *cell).transpose(0, 2, 1, 3)
    return labels.reshape(rows * cell[0], -1)[:height, :width].astype(jnp.int32)


def _sides(x: Array, fill: int) -> list[Array]:
    """The values above, left, below and right of each pixel."""
    wide = jnp.pad(x, 1, constant_values=fill)
    return [wide[:-2, 1:-1], wide[1:-1, :-2], wide[2:, 1:-1], wide[1:-1, 2:]]


@jax.jit
def components(labels: Int[Array | np.ndarray, "h w"]) -> Int[Array, "h w"]:
    """Connected pieces of equal label, each named by the number of its first pixel."""
    labels = jnp.asarray(labels)
    same = [labels == side for side in _sides(labels, -1)]
    inside = _sides(jnp.ones(labels.shape, bool), 0)

    def spread(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        first, _ = carry
        new = first
        for equal, real, side in zip(same, inside, _sides(first, 0)):
            new = jnp.where(equal & real, jnp.minimum(new, side), new)
        new = new.ravel()[new]  # and on to what that pixel has found
        return new, (new != first).any()

    own = jnp.arange(labels.size, dtype=jnp.int32).reshape(labels.shape)
    return lax.while_loop(lambda carry: carry[1], spread, (own, jnp.array(True)))[0]


@jax.jit
def _joined(labels: Array, least: Array) -> Array:
    """Components, those of less than `least` pixels given to their neighbours."""
    pieces = components(labels)
    sizes = jnp.zeros(labels.size, jnp.int32).at[pieces.ravel()].add(1)[pieces]
    kept = jnp.where(sizes >= jnp.minimum(least, sizes.max()), pieces, -1)

    def grow(kept: Array) -> Array:
        new = kept
        for side in _sides(kept, -1):
            new = jnp.where((kept < 0) & (new < 0), side, new)
        return new

    return lax.while_loop(lambda kept: (kept < 0).any(), grow, kept)


def boundaries(labels: Int[Array | np.ndarray, "h w"]) -> Bool[Array, "h w"]:
    """Pixels whose right or lower neighbour has another label."""
    labels = jnp.asarray(labels)
    below = jnp.pad(labels[1:] != labels[:-1], ((0, 1), (0, 0)))
    right = jnp.pad(labels[:, 1:] != labels[:, :-1], ((0, 0), (0, 1)))
    return below | right


@partial(jax.jit, static_argnums=2)
def region_means(
    values: Num[Array | np.ndarray, "h w c"], labels: Int[Array | np.ndarray, "h w"], count: int
) -> Float[Array, "count c"]:
    """The mean of the values of each of the regions 0 to `count` - 1; 0 where one is empty."""
    flat = jnp.asarray(values, jnp.float32).reshape(-1, values.shape[-1])
    extended = jnp.concatenate([flat, jnp.ones((len(flat), 1))], 1)
    sums = jax.ops.segment_sum(extended, jnp.ravel(labels), count)
    return sums[:, :-1] / jnp.maximum(sums[:, -1:], 1)


@partial(jax.jit, static_argnums=1)
def touching(labels: Int[Array | np.ndarray, "h w"], count: int) -> Bool[Array, "count count"]:
    """Which regions have pixels that are neighbours by a side or a corner."""
    labels = jnp.asarray(labels)
    pairs = [
        (labels[:-1], labels[1:]),
        (labels[:, :-1], labels[:, 1:]),
        (labels[:-1, :-1], labels[1:, 1:]),
        (labels[:-1, 1:], labels[1:, :-1]),
    ]
    a, b = (jnp.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1))
    found = jnp.zeros((count, count), bool).at[a, b].set(True)
    return (found | found.T) & ~jnp.eye(count, dtype=bool)
