"""RoIPool: maxima of whole cells; see `jaxvision.ops.roi` for its source."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from jaxvision.ops.roi.align import Boxes, prepared
from jaxvision.ops.windows import Pair, pair


class _Cells(NamedTuple):
    """The cells of one axis in each bin: from `first` on, those before `behind`."""

    first: Int[Array, "b n i"]
    behind: Int[Array, "b n i"]


def _rounded(x: Array) -> Array:
    """To the nearest whole number, halves away from 0, as `round` of C."""
    return jnp.sign(x) * jnp.floor(jnp.abs(x) + 0.5)


def _quotient(a: Int[Array, "*b"], b: int) -> Float[Array, "*b"]:
    """`a / b` of whole numbers above 0 as float32 rounds it, which decides what cells a bin has.

    XLA may multiply by the inverse instead. This is a division with 24 digits, rounded to even.
    """
    shift = jnp.clip(lax.clz(a) - 8 + (b.bit_length() - 1), 0)
    shift += (a << shift) // b < 2**23
    digits, rest = jnp.divmod(a << shift, b)
    digits += (2 * rest > b) | ((2 * rest == b) & (digits % 2 == 1))
    return jnp.ldexp(digits.astype(jnp.float32), -shift)


def cells_of(low: Array, high: Array, bins: int, limit: int, last: bool) -> _Cells:
    """Args: `last` says whether the cell in which the box ends is in it; `limit` is the largest."""
    start, end = _rounded(low), _rounded(high)
    extent = jnp.maximum(end - start + last, 1)
    size = _quotient(extent.astype(jnp.int32), bins)[..., None]
    edges = jnp.arange(bins + 1, dtype=jnp.float32)
    bounds = jnp.floor(edges[:-1] * size), jnp.ceil(edges[1:] * size)
    return _Cells(*(jnp.clip(e + start[..., None], 0, limit).astype(jnp.int32) for e in bounds))


def _column_maxima(x: Float[Array, "b h w c"]) -> tuple[Array, Array]:
    """Of k = 0, 1, ... the maxima of 2^k columns from each on, and the first column that has it."""
    width = x.shape[2]
    values = [x]
    columns = [jnp.broadcast_to(jnp.arange(width, dtype=jnp.int32)[:, None], x.shape)]
    for k in range((width - 1).bit_length() if width > 1 else 0):
        pads = ((0, 0), (0, 0), (0, 2**k), (0, 0))
        other = jnp.pad(values[-1], pads, constant_values=-jnp.inf)[:, :, 2**k :]
        where = jnp.pad(columns[-1], pads)[:, :, 2**k :]
        better = other > values[-1]
        values.append(jnp.where(better, other, values[-1]))
        columns.append(jnp.where(better, where, columns[-1]))
    return jnp.stack(values, 1), jnp.stack(columns, 1)


def _first_maxima(x: Array, rows: _Cells, columns: _Cells) -> tuple[Array, Array]:
    """The maximum of each bin, and where in the map its first one is, row by row; -1 of none."""
    batch, height, width, channels = x.shape
    values, places = (t.reshape(batch, -1, channels) for t in _column_maxima(x))
    count = columns.behind - columns.first
    powers = 2 ** np.arange(1, max(1, (width - 1).bit_length()))
    power = jnp.sum(count[..., None] >= powers, -1)  # two ranges of 2^power cover the columns
    pair_of_starts = columns.first, jnp.maximum(columns.behind - 2**power, 0)
    take = jax.vmap(lambda table, at: table.at[at].get(mode="promise_in_bounds"))

    def row(k: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        best, place = carry
        y = rows.first + k
        line = (power[..., None, :] * height + jnp.minimum(y, height - 1)[..., None]) * width
        valid = (y < rows.behind)[..., None] & (count > 0)[..., None, :]
        for start in pair_of_starts:
            at = line + jnp.minimum(start, width - 1)[..., None, :]
            value = take(values, at)
            better = valid[..., None] & (value > best)
            best = jnp.where(better, value, best)
            column = take(places, at)
            place = jnp.where(better, y[..., None, None] * width + column, place)
        return best, place

    shape = (*rows.first.shape, columns.first.shape[-1], channels)
    initial = jnp.full(shape, -jnp.inf, x.dtype), jnp.full(shape, -1, jnp.int32)
    return lax.fori_loop(0, jnp.max(rows.behind - rows.first), row, initial)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _bin_maxima(size: tuple[int, int], x: Array, rows: _Cells, columns: _Cells) -> Array:
    return _bin_maxima_forward(size, x, rows, columns)[0]


def _bin_maxima_forward(
    size: tuple[int, int], x: Array, rows: _Cells, columns: _Cells
) -> tuple[Array, Array]:
    best, place = _first_maxima(x, rows, columns)
    return jnp.where(place < 0, 0, best), place


def _bin_maxima_backward(size: tuple[int, int], place: Array, g: Array) -> tuple[Array, None, None]:
    def add(place: Array, g: Array) -> Array:
        channels = g.shape[-1]
        flat = jnp.zeros((size[0] * size[1], channels), g.dtype)
        place = jnp.where(place < 0, flat.shape[0], place).reshape(-1, channels)
        return flat.at[place, jnp.arange(channels)].add(g.reshape(-1, channels), mode="drop")

    dx = jax.vmap(add)(place, g)
    return dx.reshape(g.shape[0], *size, -1), None, None


_bin_maxima.defvjp(_bin_maxima_forward, _bin_maxima_backward)


def roi_pool(
    features: Float[Array, "b h w c"],
    boxes: Boxes,
    output_size: Pair,
    spatial_scale: float = 1.0,
) -> Float[Array, "b n oh ow c"]:
    """RoIPool: the maximum of the cells in each bin of each box, rounded to whole cells.

    Neighbouring bins share a row or column where the sizes do not divide; a bin outside the map is
    0. The first of equal maxima, row by row, takes the gradient.

    Args: see `roi_align`.
    """
    dtype = features.dtype
    (x,), boxes = prepared([features], boxes)
    x0, y0, x1, y1 = jnp.moveaxis(boxes * spatial_scale, -1, 0)
    (height, width), (oh, ow) = x.shape[1:3], pair(output_size)
    rows = cells_of(y0, y1, oh, height, last=True)
    columns = cells_of(x0, x1, ow, width, last=True)
    return _bin_maxima((height, width), x, rows, columns).astype(dtype)
