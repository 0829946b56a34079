"""Histograms of oriented gradients.

Dalal and Triggs, "Histograms of Oriented Gradients for Human Detection", 2005,
https://doi.org/10.1109/CVPR.2005.177. The numbers are those of `skimage.feature.hog`: orientations
are counted whole, without interpolation between bins and cells.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from jaxvision.errors import UserError, unknown

NORMS = ("L1", "L1-sqrt", "L2", "L2-Hys")
_EPSILON = 1e-5
_CLIP = 0.2  # of L2-Hys


@partial(jax.jit, static_argnums=(1, 2, 3, 4, 5))
def hog(
    image: Num[Array | np.ndarray, "b h w c"],
    orientations: int = 9,
    cell: tuple[int, int] = (8, 8),
    block: tuple[int, int] = (3, 3),
    norm: str = "L2-Hys",
    square_root: bool = False,
) -> Float[Array, "b f"]:
    """Histograms of gradient orientations in cells, normalised in overlapping blocks of cells.

    Args:
      image: any scale; of several channels the one with the largest gradient counts at each pixel.
      orientations: bins over 0 to 180 degrees.
      cell: pixels (rows, columns) of a cell; pixels that fill no whole cell only give gradients.
      block: cells (rows, columns) of a block.
      norm: of a block; `L2-Hys` is L2, clipped at 0.2, and L2 again.
      square_root: whether to take the images' square root first.

    Returns:
      float32, blocks by row, in each its cells by row, in each the orientations:
      f = block rows * block columns * block[0] * block[1] * orientations.

    Raises:
      UserError: unknown norm, or an image smaller than one block.
    """
    if norm not in NORMS:
        raise unknown("norm", norm, NORMS)
    height, width = image.shape[1:3]
    rows, columns = height // cell[0], width // cell[1]
    if rows < block[0] or columns < block[1]:
        raise UserError(
            f"Images of {width}x{height} pixels hold {columns}x{rows} cells of "
            f"{cell[1]}x{cell[0]}, less than a block of {block[1]}x{block[0]}; "
            "make cells or blocks smaller."
        )
    x = jnp.asarray(image, jnp.float32)
    dy, dx = _gradient(jnp.sqrt(x) if square_root else x)
    magnitude, bins = jnp.hypot(dx, dy), _orientation(dx, dy, orientations)

    def count(index: int) -> Array:
        of_bin = jnp.where(bins == index, magnitude, 0)[:, : rows * cell[0], : columns * cell[1]]
        return of_bin.reshape(-1, rows, cell[0], columns, cell[1]).mean((2, 4))

    cells = jnp.stack([count(index) for index in range(orientations)], -1)
    down, right = rows - block[0] + 1, columns - block[1] + 1
    shifted = [
        cells[:, i : i + down, j : j + right] for i in range(block[0]) for j in range(block[1])
    ]
    blocks = jnp.stack(shifted, 3).reshape(len(image), down, right, -1)
    return _normalised(blocks, norm).reshape(len(image), -1)


def _gradient(x: Float[Array, "b h w c"]) -> tuple[Float[Array, "b h w"], Float[Array, "b h w"]]:
    """Central differences (down, right), 0 at the border, of the channel where they are largest."""
    dy = jnp.pad(x[:, 2:] - x[:, :-2], ((0, 0), (1, 1), (0, 0), (0, 0)))
    dx = jnp.pad(x[:, :, 2:] - x[:, :, :-2], ((0, 0), (0, 0), (1, 1), (0, 0)))
    if x.shape[-1] == 1:
        return dy[..., 0], dx[..., 0]
    strongest = jnp.argmax(dx**2 + dy**2, -1, keepdims=True)
    dy, dx = (jnp.take_along_axis(d, strongest, -1)[..., 0] for d in (dy, dx))
    return dy, dx


def _orientation(dx: Array, dy: Array, orientations: int) -> Array:
    """The bin of each gradient's angle modulo 180 degrees.

    It is found by comparing the gradient with the borders of the bins: no arc tangent has to be
    exact for gradients at exactly 0, 45, 90 or 135 degrees to fall into the bin that begins there.
    """
    upper = (dy > 0) | ((dy == 0) & (dx > 0))
    dx, dy = jnp.where(upper, dx, -dx), jnp.where(upper, dy, -dy)
    angles = np.pi * np.arange(1, orientations) / orientations
    beyond = [
        (np.float32(np.cos(a)) * dy >= np.float32(np.sin(a)) * dx).astype(jnp.int32) for a in angles
    ]
    # Horizontal gradients begin the first bin; their -0.0 must not be taken for 180 degrees.
    return jnp.where(dy == 0, 0, sum(beyond, jnp.zeros(dx.shape, jnp.int32)))


def _normalised(blocks: Float[Array, "b i j n"], norm: str) -> Float[Array, "b i j n"]:
    if norm.startswith("L1"):
        out = blocks / (jnp.sum(jnp.abs(blocks), -1, keepdims=True) + _EPSILON)
        return jnp.sqrt(out) if norm == "L1-sqrt" else out

    def l2(v: Array) -> Array:
        return v / jnp.sqrt(jnp.sum(v**2, -1, keepdims=True) + _EPSILON**2)

    return l2(jnp.minimum(l2(blocks), _CLIP)) if norm == "L2-Hys" else l2(blocks)
