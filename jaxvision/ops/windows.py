"""Windows on NHWC maps: their places, their contents (im2col) and the transpose of that.

Convolutions, poolings and matrices of these share them.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Num, Shaped

from jaxvision.ops.forms import accumulable, is_plain

Pair = int | Sequence[int]
Padding = int | Sequence[int] | Sequence[Sequence[int]]


def pair(value: Pair) -> tuple[int, int]:
    """A number for both spatial axes, or one for each, as (rows, columns)."""
    both = (value, value) if isinstance(value, int) else tuple(value)
    if len(both) != 2:
        raise ValueError(f"{value} is neither a number nor (rows, columns).")
    return int(both[0]), int(both[1])


def pad_pairs(padding: Padding) -> tuple[tuple[int, int], tuple[int, int]]:
    """`p`, `(rows, columns)` or `((top, bottom), (left, right))`, as the last of these."""
    rows, columns = (padding, padding) if isinstance(padding, int) else padding
    return pair(rows), pair(columns)


def same_padding(
    size: Sequence[int], window: int, stride: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """TensorFlow's `SAME`: the map's size by the stride, rounded up, is how many windows fit.

    An odd zero is at the bottom and the right.

    Args:
      size: (height, width) of the map.
      window: side of the windows.
      stride: of the windows.
    """
    lacking = (max((-(-n // stride) - 1) * stride + window - n, 0) for n in size)
    rows, columns = ((total // 2, total - total // 2) for total in lacking)
    return rows, columns


class Window(NamedTuple):
    """The windows of a convolution or a pooling on a map; every field is (rows, columns).

    Its taps are the positions inside the window, counted row by row.
    """

    size: tuple[int, ...]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: tuple[tuple[int, int], ...] = ((0, 0), (0, 0))

    def padded_size(self, size: Sequence[int]) -> tuple[int, int]:
        """The size of a map of `size` with its padding."""
        (top, bottom), (left, right) = self.padding
        return size[0] + top + bottom, size[1] + left + right

    def output_size(self, size: Sequence[int]) -> tuple[int, int]:
        """How many windows fit on a map of `size`, down and across."""
        rows, columns = (
            (n - (k - 1) * d - 1) // s + 1
            for n, k, s, d in zip(
                self.padded_size(size), self.size, self.stride, self.dilation, strict=True
            )
        )
        return rows, columns

    def offsets(self) -> list[tuple[int, int]]:
        """Each tap's place, counted from its window's corner."""
        (rows, columns), (down, across) = self.size, self.dilation
        return [(i * down, j * across) for i in range(rows) for j in range(columns)]


def pad(
    x: Shaped[Array, "b h w *c"], padding: Sequence[tuple[int, int]], value: float | int = 0
) -> Shaped[Array, "b new_h new_w *c"]:
    """Pads rows and columns with `value`; negative padding crops."""
    if is_plain():
        return _bordered(x, padding, value)
    (top, bottom), (left, right) = padding
    config = [(0, 0, 0), (top, bottom, 0), (left, right, 0), *[(0, 0, 0)] * (x.ndim - 3)]
    return lax.pad(x, jnp.asarray(value, x.dtype), config)


def _bordered(x: Array, padding: Sequence[tuple[int, int]], value: float | int) -> Array:
    """`pad` in two steps: jax2onnx takes `lax.pad` of a batch of any size for an error."""
    for axis, (before, after) in enumerate(padding, start=1):
        x = lax.slice_in_dim(x, max(-before, 0), x.shape[axis] - max(-after, 0), axis=axis)
    added = [(max(before, 0), max(after, 0)) for before, after in padding]
    widths = ((0, 0), *added, *[(0, 0)] * (x.ndim - 3))
    return jnp.pad(x, widths, constant_values=value)


def window_taps(
    x: Num[Array, "b h w c"], window: Window, fill: float | int = 0
) -> list[Num[Array, "b oh ow c"]]:
    """For each tap of the window, the map of what all the windows have there.

    Args:
      x: the map.
      window: the windows laid on it.
      fill: what the padding holds.
    """
    (rows, columns), (down, across) = window.output_size(x.shape[1:3]), window.stride
    if window.padding != ((0, 0), (0, 0)):
        # Fused into each of the slices, the padding would cost a branch per element and tap.
        x = lax.optimization_barrier(pad(x, window.padding, fill))
    batch, _, _, channels = x.shape
    return [
        lax.slice(
            x,
            (0, i, j, 0),
            (batch, i + (rows - 1) * down + 1, j + (columns - 1) * across + 1, channels),
            (1, down, across, 1),
        )
        for i, j in window.offsets()
    ]


def overlap_add(
    term: Callable[..., Float[Array, "b oh ow c"]],
    sources: Sequence[Array],
    window: Window,
    size: Sequence[int],
) -> Float[Array, "b h w c"]:
    """The transpose of `window_taps`: adds a map per tap to the places where the tap was taken.

    The result is put together from its stride x stride phases (the places that are equal modulo
    the stride), each a sum of slices. Dilated or padded maps, one per tap, are what makes the
    gradients of strided windows slow.

    Args:
      term: `term(n, *sources)` is the map to add for tap n. It works place by place (it is given
        slices of the sources) and is 0 where the sources are.
      sources: arrays `[b, oh, ow, ...]`.
      window: the windows that the taps belong to.
      size: the result's height and width.
    """
    (down, across), padded = window.stride, window.padded_size(size)
    height, width = -(-padded[0] // down), -(-padded[1] // across)
    offsets, (rows, columns) = window.offsets(), sources[0].shape[1:3]
    top, left = offsets[-1][0] // down, offsets[-1][1] // across
    around = ((top, height - rows), (left, width - columns))
    if around != ((0, 0), (0, 0)):
        sources = lax.optimization_barrier([pad(source, around) for source in sources])
    phases: dict[tuple[int, int], Array] = {}
    for n, (i, j) in enumerate(offsets):
        (y, row), (x, column) = divmod(i, down), divmod(j, across)
        shifted = (s[:, top - y : top - y + height, left - x : left - x + width] for s in sources)
        value = term(n, *shifted)
        dtype, value = value.dtype, accumulable(value)
        phases[row, column] = phases[row, column] + value if (row, column) in phases else value
    empty = jnp.zeros_like(phases[0, 0])
    whole = jnp.stack(
        [
            jnp.stack([phases.get((row, column), empty) for column in range(across)], axis=3)
            for row in range(down)
        ],
        axis=2,
    )
    whole = whole.reshape(-1, height * down, width * across, empty.shape[3])
    crop = [
        (-before, before + n - m)
        for (before, _), n, m in zip(window.padding, size, whole.shape[1:3], strict=True)
    ]
    return pad(whole, crop).astype(dtype)


def _stack_taps(x: Array, window: Window) -> Array:
    return jnp.stack(window_taps(x, window), axis=3)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def window_patches(x: Float[Array, "b h w c"], window: Window) -> Float[Array, "b oh ow taps c"]:
    """The contents of each window (im2col); padding is 0. Its gradient is an `overlap_add`."""
    return _stack_taps(x, window)


window_patches.defvjp(
    lambda x, window: (_stack_taps(x, window), x.shape[1:3]),
    lambda window, size, g: (overlap_add(lambda n, g: g[..., n, :], [g], window, size),),
)
