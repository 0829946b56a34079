"""RoIAlign, on one map and on the levels of a pyramid; see `jaxvision.ops.roi` for its source.

Bilinear samples on a regular grid, and means over whole cells, are separable: a bin is a weighted
sum of rows of weighted sums of columns, `wy @ map @ wx.T`. So any number of samples in a bin is one
matrix of a fixed size. What differs is how the product is computed:

- A few samples are gathered, one corner at a time: no other form reads less.
- A number of samples that depends on the box is a product of matrices on accelerators. On CPUs it
  is a loop over small tiles of the map that the box covers.
- So is the gradient of both on CPUs: XLA's scatter takes two microseconds for each vector that it
  adds, of which a box of 7x7 bins and 2x2 samples has 784.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from jaxvision.ops.forms import accumulable, per_platform
from jaxvision.ops.windows import Pair, pair

Boxes = Float[Array, "b n 4"]
Sizes = tuple[tuple[int, int], ...]
_TILE = (8, 16)  # rows and columns; larger ones hold more that is outside the box
GATHERED = 3  # up to so many samples a side every corner is a gather of its own

# -- weighted sums of rows and columns ------------------------------------------------------------


def _products(_: None, wy: Array, wx: Array, x: Array) -> Array:
    """[b, n, i, j, c] of weights [b, n, i, h], [b, n, j, w] and a map [b, h, w, c]."""

    def one(wy: Array, wx: Array, x: Array) -> Array:
        rows = jnp.einsum("nih,hwc->niwc", wy, x, precision=lax.Precision.HIGHEST)
        return jnp.einsum("njw,niwc->nijc", wx, rows, precision=lax.Precision.HIGHEST)

    return jax.vmap(one)(wy, wx, x)


class _Span(NamedTuple):
    """Where the weights of one axis are not 0, in tiles."""

    first: Int[Array, " m"]
    tiles: Int[Array, " m"]
    side: int


def _span(weights: Float[Array, "m bins size"], tile: int) -> _Span:
    used, side = jnp.any(weights != 0, axis=1), min(tile, weights.shape[-1])
    first, behind = jnp.argmax(used, axis=1), used.shape[1] - jnp.argmax(used[:, ::-1], axis=1)
    return _Span(first, jnp.where(used.any(1), -(-(behind - first) // side), 0), side)


def _part(
    weights: Array, span: _Span, box: Array, tile: Array
) -> tuple[Array, Float[Array, "bins side"]]:
    """Where a box's tile begins, and its weights. The last one overlaps others, and leaves them."""
    wanted = span.first[box] + tile * span.side
    start = jnp.minimum(wanted, weights.shape[-1] - span.side)
    shape = (1, weights.shape[1], span.side)
    part = lax.dynamic_slice(weights, (box, jnp.zeros_like(box), start), shape)[0]
    mine = start + jnp.arange(span.side) >= wanted
    return start, lax.optimization_barrier(jnp.where(mine, part, 0))


def _over_columns(body: Callable, rows: _Span, columns: _Span, initial: Array) -> Array:
    """Folds `body(box, tile of columns, carry)` over all tiles of all boxes."""
    ends = jnp.cumsum(jnp.where(rows.tiles > 0, columns.tiles, 0))

    def step(t: Array, carry: Array) -> Array:
        box = jnp.sum(ends <= t)
        before = jnp.where(box > 0, ends[box - 1], 0)
        return body(box, t - before, carry)

    return lax.fori_loop(0, ends[-1], step, initial)


def _collect(
    x: Float[Array, "b h w c"], wy: Float[Array, "m i h"], wx: Float[Array, "m j w"]
) -> Float[Array, "m i j c"]:
    """The weighted sums, tile by tile; m boxes are those of b images in turn."""
    rows, columns = _span(wy, _TILE[0]), _span(wx, _TILE[1])
    per_image, channels = wy.shape[0] // x.shape[0], x.shape[-1]

    def strip(box: Array, tile: Array, out: Array) -> Array:
        left, across = _part(wx, columns, box, tile)

        def add(tile: Array, lines: Array) -> Array:
            top, down = _part(wy, rows, box, tile)
            at = (box // per_image, top, left, jnp.zeros_like(top))
            seen = lax.dynamic_slice(x, at, (1, rows.side, columns.side, channels))[0]
            return lines + sum(down[:, k, None, None] * seen[None, k] for k in range(rows.side))  # type: ignore[return-value]

        empty = jnp.zeros((wy.shape[1], columns.side, channels), x.dtype)
        lines = lax.fori_loop(0, rows.tiles[box], add, empty)
        bins = sum(across[None, :, k, None] * lines[:, None, k] for k in range(columns.side))
        return out.at[box].add(bins)

    out = jnp.zeros((wy.shape[0], wy.shape[1], wx.shape[1], channels), x.dtype)
    return _over_columns(strip, rows, columns, out)


def _spread(
    images: int, wy: Float[Array, "m i h"], wx: Float[Array, "m j w"], g: Float[Array, "m i j c"]
) -> Float[Array, "b h w c"]:
    """The transpose of `_collect`."""
    rows, columns = _span(wy, _TILE[0]), _span(wx, _TILE[1])
    per_image, channels = wy.shape[0] // images, g.shape[-1]

    def strip(box: Array, tile: Array, dx: Array) -> Array:
        left, across = _part(wx, columns, box, tile)
        bins = g[box]
        lines = sum(across[k, None, :, None] * bins[:, None, k] for k in range(wx.shape[1]))
        lines = lax.optimization_barrier(jnp.asarray(lines))  # [i, columns, c], once for all rows

        def add(tile: Array, dx: Array) -> Array:
            top, down = _part(wy, rows, box, tile)
            at = (box // per_image, top, left, jnp.zeros_like(top))
            seen = lax.dynamic_slice(dx, at, (1, rows.side, columns.side, channels))
            more = sum(down[k, :, None, None] * lines[None, k] for k in range(wy.shape[1]))
            return lax.dynamic_update_slice(dx, seen + more, at)

        return lax.fori_loop(0, rows.tiles[box], add, dx)

    dx = jnp.zeros((images, wy.shape[-1], wx.shape[-1], channels), g.dtype)
    return _over_columns(strip, rows, columns, dx)


def _by_box(*arrays: Array) -> list[Array]:
    """Arrays [b, n, ...] as [b * n, ...]."""
    return [x.reshape(-1, *x.shape[2:]) for x in arrays]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _tiles(_: None, wy: Array, wx: Array, x: Array) -> Array:
    return _collect(x, *_by_box(wy, wx)).reshape(*wy.shape[:3], wx.shape[2], -1)


def _tiles_backward(_: None, residuals: tuple[Array, ...], g: Array) -> tuple[Array, ...]:
    wy, wx, images = residuals[0], residuals[1], residuals[0].shape[0]
    return jnp.zeros_like(wy), jnp.zeros_like(wx), _spread(images, *_by_box(wy, wx, g))


_tiles.defvjp(lambda _, wy, wx, x: (_tiles(_, wy, wx, x), (wy, wx)), _tiles_backward)


def _on_cpu(form: Callable, plain: Callable) -> Callable:
    """`form`, or where there are several devices `plain`: the partitioner cannot split its loop."""
    return lambda static, *arrays: (plain if jax.device_count() > 1 else form)(static, *arrays)


separable = per_platform(cpu=_on_cpu(_tiles, _products), default=_products)

# -- bilinear samples -----------------------------------------------------------------------------


class _Grid(NamedTuple):
    """The samples of one axis of some boxes: of bin i at `start + i * size + (k + 1/2) * step`."""

    start: Float[Array, "b n"]
    size: Float[Array, "b n"]  # of a bin
    samples: Float[Array, "b n"] | int  # in a bin
    bins: int

    def places(self, samples: int) -> Float[Array, "b n i s"]:
        """All samples of a fixed number."""
        return (
            self._bin_starts()[..., None]
            + ((jnp.arange(samples) + 0.5) * self.size[..., None] / samples)[:, :, None]
        )

    def _bin_starts(self) -> Float[Array, "b n i"]:
        return self.start[..., None] + jnp.arange(self.bins) * self.size[..., None]


def _grid(low: Array, high: Array, bins: int, samples: int, at_least: float | None) -> _Grid:
    """Args: see `roi_align`; `at_least` is the least extent of a box."""
    extent = high - low if at_least is None else jnp.maximum(high - low, at_least)
    size = extent / bins
    if samples:
        return _Grid(low, size, samples, bins)
    count = jnp.ceil(size)  # XLA may divide by multiplying, which rounds otherwise
    count = count - ((count - 1) * bins >= extent) + (count * bins < extent)
    return _Grid(low, size, jnp.maximum(count, 0), bins)


def _corners(
    places: Float[Array, "*b s"], size: Int[Array, "... 1"] | int
) -> tuple[Int[Array, "*b s2"], Float[Array, "*b s2"]]:
    """The rows (columns) on both sides of each sample, and their weights in a bin's mean.

    Up to one cell outside the map the border counts, further outside nothing.
    """
    inside = (places >= -1) & (places <= size)
    places = jnp.clip(places, 0, size - 1)
    low = jnp.floor(places)
    share = (places - low) * inside
    index = jnp.concatenate([low, jnp.minimum(low + 1, size - 1)], -1).astype(jnp.int32)
    return index, jnp.concatenate([inside - share, share], -1) / places.shape[-1]


def _triangle(places: Array, rows: Array, size: int) -> Array:
    """The bilinear weights of rows for samples at some places."""
    inside = (places >= -1) & (places <= size)
    return jnp.where(inside, jnp.maximum(1 - jnp.abs(jnp.clip(places, 0, size - 1) - rows), 0), 0)


def _fixed_weights(places: Float[Array, "b n i s"], size: int) -> Float[Array, "b n i size"]:
    """How much each row counts in each bin."""
    rows = jnp.arange(size, dtype=places.dtype)
    count = places.shape[-1]
    return sum(_triangle(places[..., k, None], rows, size) for k in range(count)) / count  # type: ignore[return-value]


def _adaptive_weights(grid: _Grid, size: int) -> Float[Array, "b n i size"]:
    """`_fixed_weights` where a bin has `ceil` of its size as the number of its samples.

    Samples are then more than half a cell apart, or there is one. So fewer than five are within a
    cell of a row, and the first of them follows from the row.
    """
    start, count = grid._bin_starts()[..., None], jnp.asarray(grid.samples)[..., None, None]
    step = grid.size[..., None, None] / jnp.maximum(count, 1)
    rows = jnp.arange(size, dtype=step.dtype)
    spacing = jnp.maximum(step, 0.5)
    first = jnp.where(count > 1, jnp.floor((rows - 1 - start) / spacing - 0.5), 0)
    total = jnp.zeros_like(first)
    for more in range(6):
        k = first + more
        valid = (k >= 0) & (k < count)
        place = start + (k + 0.5) * step
        total += jnp.where(valid, _triangle(place, rows, size), 0)
    return total / jnp.maximum(count, 1)


def weights_of(grid: _Grid, samples: int, size: int) -> Float[Array, "b n i size"]:
    """How much of each row (or column) of a map is in each bin."""
    if samples:
        return _fixed_weights(grid.places(samples), size)
    return _adaptive_weights(grid, size)


def _gathers(sizes: Sizes, level: Array, y: Array, x: Array, *maps: Array) -> Array:
    """The means of samples at rows y [b, n, i, s] and columns x [b, n, j, s] of maps of levels."""
    flat = jnp.concatenate([m.reshape(m.shape[0], -1, m.shape[-1]) for m in maps], axis=1)
    begins = np.cumsum([0, *(height * width for height, width in sizes[:-1])])
    chosen = level.astype(jnp.int32)[..., None, None]
    heights, widths = (jnp.asarray(sides, jnp.int32)[chosen] for sides in zip(*sizes, strict=True))
    (rows, wy), (columns, wx) = _corners(y, heights), _corners(x, widths)
    rows = jnp.asarray(begins, jnp.int32)[chosen] + rows * widths
    total = jnp.zeros((), flat.dtype)
    take = jax.vmap(lambda table, at: table.at[at].get(mode="promise_in_bounds"))
    for k in range(wy.shape[-1]):
        for m in range(wx.shape[-1]):
            at = rows[..., k][..., :, None] + columns[..., m][..., None, :]
            weight = wy[..., k][..., :, None] * wx[..., m][..., None, :]
            total += take(flat, at) * weight[..., None]
    return total


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _gathers_spread(sizes: Sizes, level: Array, y: Array, x: Array, *maps: Array) -> Array:
    return _gathers(sizes, level, y, x, *maps)


def _gathers_spread_backward(sizes: Sizes, residuals: tuple, g: Array) -> tuple[Array, ...]:
    level, y, x = residuals
    gradients = []
    for index, (height, width) in enumerate(sizes):
        wy = jnp.where((level == index)[..., None, None], _fixed_weights(y, height), 0)
        boxes = _by_box(wy, _fixed_weights(x, width), g)
        gradients.append(_spread(y.shape[0], *boxes))
    return jnp.zeros_like(level), jnp.zeros_like(y), jnp.zeros_like(x), *gradients


_gathers_spread.defvjp(
    lambda sizes, level, y, x, *maps: (_gathers(sizes, level, y, x, *maps), (level, y, x)),
    _gathers_spread_backward,
)


gathered = per_platform(cpu=_on_cpu(_gathers_spread, _gathers), default=_gathers)


def _means(
    maps: Sequence[Array], level: Int[Array, "b n"], y: _Grid, x: _Grid, samples: int
) -> Float[Array, "b n i j c"]:
    """The mean of the samples in each bin; of each box on the map of its level."""
    sizes = tuple(m.shape[1:3] for m in maps)
    if 1 <= samples <= GATHERED:
        places = y.places(samples), x.places(samples)
        return gathered(sizes, level.astype(places[0].dtype), *places, *maps)
    total = jnp.zeros((), maps[0].dtype)
    for index, (height, width) in enumerate(sizes):
        mine = (level == index)[..., None, None]
        wy = jnp.where(mine, weights_of(y, samples, height), 0)
        total += separable(None, wy, weights_of(x, samples, width), maps[index])
    return total


def prepared(
    maps: Sequence[Array], boxes: Array, sampling_ratio: int = 0
) -> tuple[list[Array], Array]:
    """Maps in a precision to sum in, and boxes that no gradient flows to."""
    if sampling_ratio < 0:
        raise ValueError(f"sampling_ratio is {sampling_ratio}; 0 adapts it to the box.")
    maps = [accumulable(m) for m in maps]
    return maps, lax.stop_gradient(boxes.astype(maps[0].dtype))


def roi_align(
    features: Float[Array, "b h w c"],
    boxes: Boxes,
    output_size: Pair,
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    aligned: bool = False,
) -> Float[Array, "b n oh ow c"]:
    """RoIAlign: means of bilinear samples on a regular grid in each bin of each box.

    Args:
      features: the map.
      boxes: in pixels of the image; no gradient flows to them.
      output_size: bins, one number or (rows, columns).
      spatial_scale: what brings the boxes' pixels to cells of the map.
      sampling_ratio: samples of a bin in each direction; 0 is the bin's size, rounded up. A box
        without a positive size has then no samples, and zeros.
      aligned: whether a pixel's centre is at half, as in Detectron2; else boxes are half a cell off
        and at least one cell wide.

    Raises:
      ValueError: `sampling_ratio` is negative.
    """
    dtype = features.dtype
    (x,), boxes = prepared([features], boxes, sampling_ratio)
    corners = boxes * spatial_scale - (0.5 if aligned else 0.0)
    level = jnp.zeros(boxes.shape[:2], jnp.int32)
    grids = grids_of(corners, pair(output_size), sampling_ratio, None if aligned else 1.0)
    return _means([x], level, *grids, sampling_ratio).astype(dtype)


def grids_of(
    corners: Array, output_size: tuple[int, int], samples: int, at_least: float | None
) -> tuple[_Grid, _Grid]:
    """Of rows and of columns, from the corners of boxes in cells of the map."""
    x0, y0, x1, y1 = jnp.moveaxis(corners, -1, 0)
    rows, columns = output_size
    return _grid(y0, y1, rows, samples, at_least), _grid(x0, x1, columns, samples, at_least)


def pyramid_level(
    boxes: Float[Array, "*b 4"],
    levels: tuple[int, int],
    canonical_size: float = 224.0,
    canonical_level: int = 4,
) -> Int[Array, "*b"]:
    """The level of a pyramid that a box is looked at on: equation 1 of its paper.

    Args:
      boxes: in pixels of the image.
      levels: the finest and the coarsest; level k has the stride 2^k.
      canonical_size: the square root of the area of boxes that ImageNet's networks saw, in pixels.
      canonical_level: where these are looked at.
    """
    sides = boxes[..., 2:] - boxes[..., :2]
    size = jnp.sqrt(sides[..., 0] * sides[..., 1])
    level = jnp.floor(canonical_level + jnp.log2(size / canonical_size) + 1e-6)
    return jnp.clip(level, *levels).astype(jnp.int32)


def multiscale_roi_align(
    levels: Sequence[Float[Array, "b _ _ c"]],
    boxes: Boxes,
    output_size: Pair,
    strides: Sequence[int],
    sampling_ratio: int = 2,
    canonical_size: float = 224.0,
    canonical_level: int = 4,
) -> Float[Array, "b n oh ow c"]:
    """`roi_align` of each box on the map of its level: torchvision's `MultiScaleRoIAlign`.

    Args:
      levels: the maps, finest first.
      boxes, output_size, sampling_ratio: see `roi_align`.
      strides: of the maps, powers of two, each twice the one before.
      canonical_size, canonical_level: see `pyramid_level`.

    Raises:
      ValueError: the strides are others.
    """
    finest = int(np.log2(strides[0]))
    if list(strides) != [2 ** (finest + k) for k in range(len(levels))]:
        raise ValueError(f"The strides {strides} of {len(levels)} maps do not double.")
    dtype = levels[0].dtype
    maps, boxes = prepared(levels, boxes, sampling_ratio)
    ends = (finest, finest + len(maps) - 1)
    level = pyramid_level(boxes, ends, canonical_size, canonical_level) - finest
    corners = boxes / (strides[0] * 2.0**level)[..., None].astype(boxes.dtype)
    grids = grids_of(corners, pair(output_size), sampling_ratio, 1.0)
    return _means(maps, level, *grids, sampling_ratio).astype(dtype)
