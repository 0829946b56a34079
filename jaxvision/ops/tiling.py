"""Networks over images and volumes larger than what they take at once: windows with overlap.

A network without padding gives a smaller map than its window (U-Net: 388 of 572); what its border
needs to see is then mirrored at the edges of the image, as in Ronneberger et al. 2015
(https://arxiv.org/abs/1505.04597, figure 2).
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PyTree

from jaxvision.errors import UserError


class Tiling(NamedTuple):
    """How windows cover an image; every field has one number an axis.

    Attributes:
      window: the size of the network's input.
      output: the part of it that it gives back, in the middle.
      starts: where outputs begin, along each axis.
      margin: by how much the image is mirrored outwards on the near side of each axis.
      after: the same on the far side.
    """

    window: tuple[int, ...]
    output: tuple[int, ...]
    starts: tuple[np.ndarray, ...]
    margin: tuple[int, ...]
    after: tuple[int, ...]

    @classmethod
    def of(
        cls, size: Sequence[int], window: Sequence[int], output: Sequence[int], overlap: float
    ) -> "Tiling":
        """Lays windows over an image.

        Args:
          size: of the image.
          window: of the network's input.
          output: of its output for such a window.
          overlap: the part of an output that the next one covers again, at least 0 and below 1.
        """
        starts, margin, after = [], [], []
        for n, w, o in zip(size, window, output, strict=True):
            step = max(1, round(o * (1 - overlap)))
            count = max(0, -(-(n - o) // step)) + 1
            starts.append(np.minimum(np.arange(count) * step, max(n - o, 0)))
            margin.append((w - o) // 2)
            after.append(w - o - (w - o) // 2 + max(0, o - n))
        return cls(tuple(window), tuple(output), tuple(starts), tuple(margin), tuple(after))

    def corners(self) -> np.ndarray:
        """Where outputs begin, [n, axes]; windows begin there too in the mirrored image."""
        return np.array(list(itertools.product(*self.starts)))


def mirror(
    x: Float[Array, "..."], before: Sequence[int], after: Sequence[int]
) -> Float[Array, "..."]:
    """[b, *size, c] continued by its mirror image along the axes between; one pixel by itself."""
    for axis, (low, high) in enumerate(zip(before, after, strict=True), start=1):
        if low or high:
            pads = [(0, 0)] * x.ndim
            pads[axis] = (low, high)
            x = jnp.pad(x, pads, mode="reflect" if x.shape[axis] > 1 else "edge")
    return x


def sliding_window(
    apply: Callable[[Array], Array],
    x: Float[Array, "..."],
    window: Sequence[int],
    overlap: float = 0.5,
) -> Float[Array, "..."]:
    """`apply` over windows of x, its outputs averaged where they overlap; as large as x.

    Args:
      apply: [b, *window, c] to [b, *output, k]; the output may be smaller than the window.
      x: [b, *size, c], of any size.
      window: along each axis between.
      overlap: see `Tiling.of`.
    """
    size = x.shape[1:-1]
    one = jax.eval_shape(apply, jax.ShapeDtypeStruct((x.shape[0], *window, x.shape[-1]), x.dtype))
    tiling = Tiling.of(size, window, one.shape[1:-1], overlap)
    x = mirror(x, tiling.margin, tiling.after)
    corners = tiling.corners()
    extent = tuple(max(n, o) for n, o in zip(size, tiling.output))
    counts = np.zeros(extent, np.float32)
    for corner in corners:
        counts[tuple(slice(c, c + o) for c, o in zip(corner, tiling.output))] += 1

    def add(total: Array, corner: Array) -> tuple[Array, None]:
        starts = (0, *corner, 0)
        part = lax.dynamic_slice(x, starts, (x.shape[0], *window, x.shape[-1]))
        found = apply(part)
        before = lax.dynamic_slice(total, starts, found.shape)
        return lax.dynamic_update_slice(total, before + found, starts), None

    empty = jnp.zeros((x.shape[0], *extent, one.shape[-1]), one.dtype)
    total, _ = lax.scan(add, empty, jnp.asarray(corners, jnp.int32))
    mean = total / jnp.asarray(counts, total.dtype)[..., None]
    return mean[(slice(None), *(slice(n) for n in size))]


def each_window(
    apply: Callable[[Array], Any],
    image: Float[Array, "b h w c"],
    window: int,
    stride: int = 1,
    batch: int = 256,
) -> PyTree[Float[Array, "b i j ..."]]:
    """What a network of windows gives at each place of an image: the windows are run one by one.

    Args:
      apply: from windows [n, window, window, c] to arrays [n, ...].
      image: of at least one window.
      window: its rows and columns.
      stride: between the places.
      batch: how many windows `apply` is given at once.

    Raises:
      UserError: the image has no place for a window.
    """
    rows, columns = ((side - window) // stride + 1 for side in image.shape[1:3])
    if rows < 1 or columns < 1:
        raise UserError(f"No window of {window}x{window} fits images of {image.shape[1:3]}.")
    count = len(image) * rows * columns

    def one(index: Array) -> Array:
        number, place = index // (rows * columns), index % (rows * columns)
        corner = (number, place // columns * stride, place % columns * stride, 0)
        return lax.dynamic_slice(image, corner, (1, window, window, image.shape[3]))[0]

    batch = min(batch, count)
    starts = jnp.arange(math.ceil(count / batch)) * batch
    found = lax.map(
        # The last batch is filled up with the last window.
        lambda start: apply(jax.vmap(one)(jnp.minimum(start + jnp.arange(batch), count - 1))),
        starts,
    )

    def placed(x: Array) -> Array:
        x = x.reshape(-1, *x.shape[2:])[:count]
        return x.reshape(len(image), rows, columns, *x.shape[1:])

    return jax.tree.map(placed, found)
