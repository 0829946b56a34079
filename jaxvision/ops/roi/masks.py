"""Masks and key points of objects, as the boxes around them see them: He et al., Mask R-CNN, 2017.

https://arxiv.org/abs/1703.06870. Reference: torchvision's `project_masks_on_boxes`,
`keypoints_to_heatmap` and `heatmaps_to_keypoints`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt8

from jaxvision.ops.bits import unpack
from jaxvision.ops.forms import vary_alike
from jaxvision.ops.roi.align import grids_of, weights_of

_AT_ONCE = 16  # masks that are unpacked at the same time
_TILE = 64  # rows and columns of an enlarged heat map that are looked at together


def masks_in_boxes(
    masks: UInt8[Array, "b g h p"],
    boxes: Float[Array, "b n 4"],
    matches: Int[Array, "b n"],
    size: int,
    width: int,
) -> Float[Array, "b n size size"]:
    """What part of each cell of a box its object's mask covers: `roi_align` of the mask.

    Args:
      masks: as bits, see `jaxvision.ops.bits`.
      boxes: in pixels.
      matches: which mask each box has.
      size: cells a side.
      width: of the masks, in pixels.
    """
    rows, columns = grids_of(boxes, (size, size), 0, 1.0)
    wy, wx = weights_of(rows, 0, masks.shape[2]), weights_of(columns, 0, width)

    def image(masks: Array, matches: Array, wy: Array, wx: Array) -> Array:
        def one(box: tuple[Array, Array, Array]) -> Array:
            match, wy, wx = box
            mask = unpack(masks[match], width).astype(wy.dtype)
            return jnp.matmul(
                jnp.matmul(wy, mask, precision=lax.Precision.HIGHEST),
                wx.T,
                precision=lax.Precision.HIGHEST,
            )

        return lax.map(one, (matches, wy, wx), batch_size=_AT_ONCE)

    return lax.map(lambda arrays: image(*arrays), (masks, matches, wy, wx))


class Cells(NamedTuple):
    """Where key points are in the heat maps of their boxes.

    Attributes:
      place: the cell, row by row.
      valid: whether the key point is known and in its box.
    """

    place: Int[Array, "*b k"]
    valid: Bool[Array, "*b k"]


def cells_of_keypoints(
    keypoints: Float[Array, "*b k 3"], boxes: Float[Array, "*b 4"], size: int
) -> Cells:
    """The cells of `size` x `size` a box in which its object's key points are.

    Args:
      keypoints: (x, y, visible) of each box's object, in pixels.
      boxes: in pixels.
      size: cells a side; a point on the right or lower edge is in the last one.
    """
    low, high = boxes[..., None, :2], boxes[..., None, 2:]
    place = keypoints[..., :2]
    cell = jnp.floor((place - low) * (size / (high - low)))
    cell = jnp.where(place == high, size - 1, cell)
    valid = jnp.all((cell >= 0) & (cell < size), -1) & (keypoints[..., 2] > 0)
    cell = jnp.where(valid[..., None], cell, 0).astype(jnp.int32)
    return Cells(cell[..., 1] * size + cell[..., 0], valid)


def highest_places(
    heatmaps: Float[Array, "n s s k"], boxes: Float[Array, "n 4"], valid: Bool[Array, " n"]
) -> Float[Array, "n k 3"]:
    """(x, y, height) of the highest place of each heat map, enlarged to its box's pixels.

    The maps are enlarged by bicubic interpolation to whole pixels of the box, tile by tile, so that
    an image full of boxes needs no more memory than a small one.

    Args:
      heatmaps: of each key point in each box.
      boxes: in pixels of the image.
      valid: which boxes are looked at; the others give zeros.
    """
    sides = jnp.maximum(boxes[:, 2:] - boxes[:, :2], 1)

    def one(box: tuple[Array, ...]) -> Array:
        maps, side, whole, there = box
        width, height = whole[0], whole[1]
        tiles = jnp.where(there, -(-whole // _TILE), 0)

        def look(index: Array, best: tuple[Array, Array]) -> tuple[Array, Array]:
            row, column = index // tiles[0], index % tiles[0]
            y, x = (at * _TILE + jnp.arange(_TILE, dtype=at.dtype) for at in (row, column))
            wy, wx = (
                _cubic_weights(at, n, maps.shape[0], maps.dtype)
                for at, n in ((y, height), (x, width))
            )
            high = lax.Precision.HIGHEST
            tile = jnp.einsum("yi,ijk->yjk", wy, maps, precision=high)
            tile = jnp.einsum("xj,yjk->yxk", wx, tile, precision=high)
            inside = (y < height)[:, None] & (x < width)[None]
            tile = jnp.where(inside[..., None], tile, -jnp.inf).reshape(_TILE**2, -1)
            place = jnp.argmax(tile, 0).astype(whole.dtype)
            value = jnp.take_along_axis(tile, place[None], 0)[0]
            place = y[place // _TILE] * width + x[place % _TILE]
            # Of equal heights the first place row by row, as of the whole map.
            better = (value > best[0]) | ((value == best[0]) & (place < best[1]))
            return jnp.where(better, value, best[0]), jnp.where(better, place, best[1])

        count = maps.shape[-1]
        lowest, first = jnp.full(count, -jnp.inf, maps.dtype), jnp.zeros(count, whole.dtype)
        lowest, first, *_ = vary_alike(lowest, first, maps, side, whole, there)
        value, place = lax.fori_loop(0, tiles[0] * tiles[1], look, (lowest, first))
        found = jnp.stack([place % width, place // width], -1) + 0.5
        found = found.astype(maps.dtype) * (side / whole)
        return jnp.where(there, jnp.concatenate([found, value[:, None]], -1), 0)

    whole = jnp.ceil(sides).astype(jnp.int32)
    found = lax.map(one, (heatmaps, sides, whole, valid))
    corner = jnp.where(valid[:, None], boxes[:, :2], 0)
    return found.at[..., :2].add(corner[:, None])


def _cubic_weights(
    places: Int[Array, " m"], new_size: Int[Array, ""], size: int, dtype: jnp.dtype
) -> Float[Array, "m size"]:
    """Rows of the matrix that resizes an axis; `ops.resize_matrix` for a size that is computed."""
    a = -0.75  # PyTorch's
    centre = (places + 0.5).astype(dtype) * (size / new_size.astype(dtype)) - 0.5
    low = jnp.floor(centre)
    total = jnp.zeros((len(places), size), dtype)
    for tap in range(-1, 3):
        x = jnp.abs(centre - (low + tap))
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = a * (((x - 5) * x + 8) * x - 4)
        weight = jnp.where(x <= 1, near, jnp.where(x < 2, far, 0))
        row = jnp.clip(low + tap, 0, size - 1).astype(jnp.int32)
        total += weight[:, None] * jax.nn.one_hot(row, size, dtype=dtype)
    return total


class Overlaps(NamedTuple):
    """How many pixels of an image masks have, and have in common.

    Attributes:
      shared: of each that is found with each that is there.
      found: of those that are found.
      true: of those that are there.
    """

    shared: Float[Array, "d n"]
    found: Float[Array, " d"]
    true: Float[Array, " n"]


def mask_overlaps(
    masks: Float[Array, "d m m"],
    boxes: Float[Array, "d 4"],
    true: UInt8[Array, "n h p"],
    width: int,
) -> Overlaps:
    """Of masks in boxes, brought to their image's pixels, and masks of it.

    As torchvision's `paste_masks_in_image` with a threshold of one half: a mask is enlarged by
    bilinear interpolation to whole pixels, with zeros around it. Rows are looked at in parts, so
    that no mask is in memory as a whole.

    Args:
      masks: how likely each cell of a box is its object's, 0 to 1.
      boxes: in pixels.
      true: as bits, see `jaxvision.ops.bits`.
      width: of the image, in pixels.
    """
    cells, height = masks.shape[1], true.shape[1]
    padded = jnp.pad(masks, ((0, 0), (1, 1), (1, 1)))
    low, high = _with_border(boxes, cells)
    wx = _linear_weights(jnp.arange(width), low[:, :1], high[:, :1], cells + 2)
    rows = -(-height // _TILE) * _TILE
    true = jnp.pad(true, ((0, 0), (0, rows - height), (0, 0)))

    def add(part: Array, sums: Overlaps) -> Overlaps:
        y = part * _TILE + jnp.arange(_TILE)
        wy = _linear_weights(y, low[:, 1:], high[:, 1:], cells + 2) * (y < height)[:, None]
        exact = lax.Precision.HIGHEST
        likely = jnp.einsum("dyi,dij->dyj", wy, padded, precision=exact)
        likely = jnp.einsum("dxj,dyj->dyx", wx, likely, precision=exact)
        found = (likely > 0.5).astype(jnp.float32).reshape(len(masks), -1)
        there = unpack(lax.dynamic_slice_in_dim(true, part * _TILE, _TILE, 1), width)
        there = there.astype(jnp.float32).reshape(len(true), -1)
        return Overlaps(
            sums.shared + jnp.matmul(found, there.T, precision=exact),
            sums.found + found.sum(1),
            sums.true + there.sum(1),
        )

    nothing = Overlaps(*(jnp.zeros(s) for s in ((len(masks), len(true)), len(masks), len(true))))
    nothing = Overlaps(*vary_alike(*nothing, masks, boxes, true)[:3])
    return lax.fori_loop(0, rows // _TILE, add, nothing)


def paste_mask(
    mask: Float[Array, "m m"], box: Float[Array, "4"], size: tuple[int, int]
) -> Bool[Array, "h w"]:
    """One mask in its box, brought to the pixels of its image as in `mask_overlaps`.

    Args:
      mask: how likely each cell of the box is its object's, 0 to 1.
      box: in pixels.
      size: (height, width) of the image.
    """
    cells, exact = len(mask), lax.Precision.HIGHEST
    low, high = _with_border(box[None], cells)
    wy, wx = (
        _linear_weights(jnp.arange(side), low[:, [axis]], high[:, [axis]], cells + 2)[0]
        for axis, side in ((1, size[0]), (0, size[1]))
    )
    likely = jnp.matmul(wy, jnp.pad(mask, 1), precision=exact)
    return jnp.matmul(likely, wx.T, precision=exact) > 0.5


def _with_border(
    boxes: Float[Array, "d 4"], cells: int
) -> tuple[Float[Array, "d 2"], Float[Array, "d 2"]]:
    """The first and last (x, y) of the pixels of boxes that are larger by a cell on each side."""
    middle, half = (boxes[:, 2:] + boxes[:, :2]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    half *= (cells + 2) / cells
    return jnp.trunc(middle - half), jnp.trunc(middle + half)


def _linear_weights(
    places: Int[Array, " y"], low: Float[Array, "d 1"], high: Float[Array, "d 1"], size: int
) -> Float[Array, "d y size"]:
    """How much each cell counts in each pixel, where cells are enlarged to [low, high]."""
    extent = jnp.maximum(high - low + 1, 1)
    centre = jnp.maximum((places - low + 0.5) * (size / extent) - 0.5, 0)[..., None]
    cells = jnp.arange(size, dtype=centre.dtype)
    weights = jnp.maximum(1 - jnp.abs(jnp.minimum(centre, size - 1) - cells), 0)
    inside = (places >= low) & (places < low + extent)
    return jnp.where(inside[..., None], weights, 0)
