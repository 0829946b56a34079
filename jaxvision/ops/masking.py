"""Which patches of an image are hidden from a network that is to say what they are."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

Grid = tuple[int, int]
_ATTEMPTS = 10  # after which BEiT's masks have no further block


def kept_patches(noise: Float[Array, "b n"], count: int) -> Int[Array, "b k"]:
    """The `count` patches of each image that are not hidden: those of the least noise.

    He et al., Masked Autoencoders Are Scalable Vision Learners, 2021,
    https://arxiv.org/abs/2111.06377: uniform noise shuffles the patches, of which the first stay.
    """
    return jnp.argsort(noise, axis=1)[:, :count]


def hidden_patches(kept: Int[Array, "b k"], patches: int) -> Bool[Array, "b n"]:
    """Which of so many patches are not among those that are kept."""
    return (kept[:, :, None] != jnp.arange(patches)).all(1)


def hidden_blocks(
    key: PRNGKeyArray,
    grid: Grid,
    most: int,
    least_block: int = 16,
    least_aspect: float = 0.3,
) -> Bool[Array, "h w"]:
    """Hides rectangles of patches until `most` are hidden, or no further one is found.

    `MaskingGenerator` of BEiT's authors (Bao et al. 2021, https://arxiv.org/abs/2106.08254,
    algorithm 1): the area of a rectangle is uniform between `least_block` and what may still be
    hidden, the logarithm of its aspect ratio is uniform too. One is taken if it lies in the image,
    hides a patch more, and not more than may be. The tenth failure in a row ends it. Each attempt
    is a round of one loop, so that all shapes are fixed and the distribution is theirs.

    Args:
      key: of one image.
      grid: rows and columns of patches.
      most: how many may be hidden.
      least_block: patches of the smallest rectangle.
      least_aspect: the flattest rectangle; the steepest is its inverse.
    """
    height, width = grid
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)
    steepest = -math.log(least_aspect)

    def going_on(state: tuple[Array, Array, Array]) -> Array:
        hidden, failures, _ = state
        return (hidden.sum() < most) & (failures < _ATTEMPTS)

    def attempt(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        hidden, failures, number = state
        drawn = jax.random.uniform(jax.random.fold_in(key, number), (4,))
        free = most - hidden.sum()
        area = least_block + drawn[0] * (free - least_block)
        aspect = jnp.exp(steepest * (2 * drawn[1] - 1))
        # Half a patch is rounded to even, as by Python.
        h = jnp.round(jnp.sqrt(area * aspect)).astype(jnp.int32)
        w = jnp.round(jnp.sqrt(area / aspect)).astype(jnp.int32)
        top = jnp.floor(drawn[2] * (height - h + 1)).astype(jnp.int32)
        left = jnp.floor(drawn[3] * (width - w + 1)).astype(jnp.int32)
        block = (rows >= top) & (rows < top + h) & (columns >= left) & (columns < left + w)
        new = (block & ~hidden).sum()
        taken = (h < height) & (w < width) & (new > 0) & (new <= free)
        failures = jnp.where(taken, 0, failures + 1)
        return jnp.where(taken, hidden | block, hidden), failures, number + 1

    start = (jnp.zeros(grid, bool), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))
    return lax.while_loop(going_on, attempt, start)[0]


def hidden_squares(
    key: PRNGKeyArray, size: Grid, count: int, side: int, border: int = 0
) -> Bool[Array, "h w"]:
    """Hides the pixels of `count` squares of an image, which lie anywhere and may overlap.

    Pathak et al., Context Encoders: Feature Learning by Inpainting, 2016,
    https://arxiv.org/abs/1604.07379, the random blocks.

    Args:
      key: of one image.
      size: its height and width.
      count: of squares.
      side: of a square.
      border: how much further each reaches in all directions.
    """
    of_rows, of_columns = jax.random.split(key)
    top = jax.random.randint(of_rows, (count, 1), 0, size[0] - side + 1)
    left = jax.random.randint(of_columns, (count, 1), 0, size[1] - side + 1)
    rows, columns = jnp.arange(size[0]), jnp.arange(size[1])
    down = (rows >= top - border) & (rows < top + side + border)
    across = (columns >= left - border) & (columns < left + side + border)
    return (down[:, :, None] & across[:, None, :]).any(0)


def hidden_centre(size: Grid, share: float, border: int = 0) -> Bool[np.ndarray, "h w"]:
    """The middle `share` of the height and of the width of an image, and a border around it."""
    inner = []
    for side in size:
        length = max(1, round(side * share))
        begin = (side - length) // 2
        places = np.arange(side)
        inner.append((places >= begin - border) & (places < begin + length + border))
    return inner[0][:, None] & inner[1]
