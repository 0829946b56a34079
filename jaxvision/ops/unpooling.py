"""Unpooling of NHWC maps: ways to enlarge a map that have nothing to learn.

By a whole factor: `nearest_unpool2d`, `bed_of_nails2d`, and `max_unpool2d_by_switches`, which puts
each value back where a max pooling took its maximum from. To any size: `jaxvision.ops.resize`; with
a learnt kernel: `conv_transpose2d`. These are CS231n's lecture on segmentation, page by page.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int8, Num

from jaxvision.ops.windows import Pair, pair


def nearest_unpool2d(x: Num[Array, "b h w c"], factor: Pair) -> Num[Array, "b kh kw c"]:
    """Repeats each value over `factor` rows and columns. Its gradient is the sum of each block.

    Args:
      x: the map.
      factor: one number or (rows, columns).
    """
    (rows, columns), (batch, height, width, channels) = pair(factor), x.shape
    blocks = jnp.broadcast_to(
        x[:, :, None, :, None], (batch, height, rows, width, columns, channels)
    )
    return blocks.reshape(batch, height * rows, width * columns, channels)


def bed_of_nails2d(x: Num[Array, "b h w c"], factor: Pair) -> Num[Array, "b kh kw c"]:
    """Puts each value into the top left corner of a block of zeros.

    Args:
      x: the map.
      factor: the size of the blocks, one number or (rows, columns).
    """
    rows, columns = (f - 1 for f in pair(factor))
    config = [(0, 0, 0), (0, rows, rows), (0, columns, columns), (0, 0, 0)]
    return lax.pad(x, jnp.zeros((), x.dtype), config)


def max_pool2d_with_switches(
    x: Num[Array, "b h w c"], window: Pair = 2
) -> tuple[Num[Array, "b oh ow c"], Int8[Array, "b oh ow c"]]:
    """The maximum of each of the windows that tile the map, and which tap of the window it is.

    Zeiler and Fergus call the latter switches: "Visualizing and Understanding Convolutional
    Networks", 2014, https://arxiv.org/abs/1311.2901. They are a byte each where the indices of
    `max_pool2d_with_indices` are four, and neither pooling nor unpooling by them needs a gather or
    a scatter, in no direction. Rows and columns that fill no window are left out; of equal values
    the first one wins, as in PyTorch.

    Args:
      x: the map.
      window: the windows' size and stride, at most 128 taps; one number or (rows, columns).
    """
    size = pair(window)
    if size[0] * size[1] > 128:
        raise ValueError(f"The taps of a window of {size} do not fit a byte.")
    return _pool(x, size)


def max_unpool2d_by_switches(
    y: Float[Array, "b oh ow c"],
    switches: Int8[Array, "b oh ow c"],
    output_size: Pair,
    window: Pair = 2,
) -> Float[Array, "b h w c"]:
    """Puts each value at the tap of its window that `switches` names, among zeros.

    Args:
      y: the values.
      switches: what `max_pool2d_with_switches` gave.
      output_size: (h, w) of the map that was pooled; its last rows and columns that filled no
        window are zeros.
      window: the same as there.
    """
    return _unpool(y, switches, pair(window), pair(output_size))


def _blocks(x: Array, size: tuple[int, int]) -> Array:
    """The windows of a map: [b, oh, rows, ow, columns, c]."""
    (rows, columns), (batch, height, width, channels) = size, x.shape
    x = x[:, : height // rows * rows, : width // columns * columns]
    return x.reshape(batch, height // rows, rows, width // columns, columns, channels)


def _taps(x: Array, size: tuple[int, int]) -> list[Array]:
    blocks = _blocks(x, size)
    return [blocks[:, :, i, :, j] for i in range(size[0]) for j in range(size[1])]


def _place(y: Array, switches: Array, size: tuple[int, int]) -> Array:
    """Each value at its tap of a block of zeros."""
    (rows, columns), (batch, height, width, channels) = size, y.shape
    tap = jnp.arange(rows * columns, dtype=jnp.int8).reshape(1, 1, rows, 1, columns, 1)
    blocks = jnp.where(switches[:, :, None, :, None] == tap, y[:, :, None, :, None], 0)
    return blocks.reshape(batch, height * rows, width * columns, channels)


def _select(x: Array, switches: Array, size: tuple[int, int]) -> Array:
    """The transpose of `_place`: what a map holds at the taps."""
    found = jnp.zeros((), x.dtype)
    for n, tap in enumerate(_taps(x, size)):
        found = jnp.where(switches == n, tap, found)
    return found


def _to_size(x: Array, size: tuple[int, int]) -> Array:
    if x.shape[1:3] == size:
        return x
    below, right = size[0] - x.shape[1], size[1] - x.shape[2]
    return jnp.pad(x, ((0, 0), (0, below), (0, right), (0, 0)))


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _pool(x: Array, size: tuple[int, int]) -> tuple[Array, Array]:
    best, *others = _taps(x, size)
    switches = jnp.zeros(best.shape, jnp.int8)
    for n, tap in enumerate(others, start=1):
        better = (tap > best) | jnp.isnan(tap)
        best = jnp.where(better, tap, best)
        switches = jnp.where(better, jnp.int8(n), switches)
    return best, switches


def _pool_forward(x: Array, size: tuple[int, int]) -> tuple[tuple[Array, Array], tuple]:
    y, switches = _pool(x, size)
    return (y, switches), (switches, x.shape[1:3])


_pool.defvjp(
    _pool_forward,
    lambda size, residuals, g: (_to_size(_place(g[0], residuals[0], size), residuals[1]),),
)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _unpool(y: Array, switches: Array, size: tuple[int, int], output_size: tuple[int, int]):
    return _to_size(_place(y, switches, size), output_size)


_unpool.defvjp(
    lambda y, switches, size, out: (_unpool(y, switches, size, out), switches),
    lambda size, out, switches, g: (_select(g, switches, size), None),
)
