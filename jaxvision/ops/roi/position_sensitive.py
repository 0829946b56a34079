"""Position-sensitive RoIAlign and RoIPool: each bin of a box has channels of its own."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxvision.ops.roi.align import (
    GATHERED,
    Boxes,
    gathered,
    grids_of,
    prepared,
    separable,
    weights_of,
)
from jaxvision.ops.roi.pool import cells_of
from jaxvision.ops.windows import Pair, pair


def _bin_maps(x: Float[Array, "b h w c"], output_size: tuple[int, int]) -> Array:
    """Each bin's own channels as a map: [b * i * j, h, w, c / (i * j)]."""
    batch, height, width, channels = x.shape
    rows, columns = output_size
    if channels % (rows * columns):
        raise ValueError(f"{channels} channels do not divide into {rows} x {columns} bins.")
    parts = x.reshape(batch, height, width, -1, rows, columns)
    return parts.transpose(0, 4, 5, 1, 2, 3).reshape(-1, height, width, parts.shape[3])


def _of_each_bin(
    value: Float[Array, "b n bins *s"], axis: int, output_size: tuple[int, int]
) -> Float[Array, "m n 1 *s"]:
    """What belongs to rows (`axis` 0) or columns (1) of bins, for `_bin_maps`."""
    value = jnp.moveaxis(value, 2, 1)
    value = jnp.expand_dims(value, 2 - axis)
    shape = (value.shape[0], *output_size, *value.shape[3:])
    return jnp.broadcast_to(value, shape).reshape(-1, *shape[3:])[:, :, None]


def _bins_together(y: Float[Array, "m n 1 1 c"], output_size: tuple[int, int]) -> Array:
    _, boxes, _, _, channels = y.shape
    return jnp.moveaxis(y.reshape(-1, *output_size, boxes, channels), 3, 1)


def ps_roi_align(
    features: Float[Array, "b h w c"],
    boxes: Boxes,
    output_size: Pair,
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
) -> Float[Array, "b n oh ow d"]:
    """Position-sensitive RoIAlign: bin (i, j) looks at channels of its own, `d * oh * ow` in all.

    Channel `(d * oh + i) * ow + j` of the map is channel d of bin (i, j).

    Args: see `roi_align`; boxes are aligned. Of one without a size torchvision's adaptive samples
      have no mean (0 / 0), here it is 0.

    Raises:
      ValueError: the channels do not divide by the bins, or `sampling_ratio` is negative.
    """
    dtype, bins = features.dtype, pair(output_size)
    (x,), boxes = prepared([features], boxes, sampling_ratio)
    grids = grids_of(boxes * spatial_scale - 0.5, bins, sampling_ratio, None)
    maps = _bin_maps(x, bins)
    if 1 <= sampling_ratio <= GATHERED:
        places = [_of_each_bin(g.places(sampling_ratio), k, bins) for k, g in enumerate(grids)]
        level = jnp.zeros(places[0].shape[:2], places[0].dtype)
        y = gathered((maps.shape[1:3],), level, *places, maps)
    else:
        sizes = x.shape[1:3]
        weights = [weights_of(g, sampling_ratio, n) for g, n in zip(grids, sizes, strict=True)]
        weights = [_of_each_bin(w, k, bins) for k, w in enumerate(weights)]
        y = separable(None, *weights, maps)
    return _bins_together(y, bins).astype(dtype)


def ps_roi_pool(
    features: Float[Array, "b h w c"],
    boxes: Boxes,
    output_size: Pair,
    spatial_scale: float = 1.0,
) -> Float[Array, "b n oh ow d"]:
    """Position-sensitive RoIPool: the mean of the cells in each bin, of the bin's own channels.

    Args, channels: see `ps_roi_align`. As in torchvision the map's last row and column belong to no
      bin.

    Raises:
      ValueError: the channels do not divide by the bins.
    """
    dtype, bins = features.dtype, pair(output_size)
    (x,), boxes = prepared([features], boxes)
    x0, y0, x1, y1 = jnp.moveaxis(boxes * spatial_scale, -1, 0)
    weights = []
    for axis, ends in enumerate(((y0, y1), (x0, x1))):
        size = x.shape[1 + axis]
        cells = cells_of(*ends, bins[axis], size - 1, last=False)
        place = jnp.arange(size)
        inside = (cells.first[..., None] <= place) & (place < cells.behind[..., None])
        count = jnp.maximum(cells.behind - cells.first, 1)[..., None]
        weights.append(_of_each_bin(inside / count.astype(x.dtype), axis, bins))
    return _bins_together(separable(None, *weights, _bin_maps(x, bins)), bins).astype(dtype)
