"""Masks of objects on the host: each is a crop of its image, or its run lengths in a file.

COCO's files say a mask by polygons or by run lengths (RLE): of all pixels, column after column, so
many are outside, so many inside, and so on, as a list or compressed into text (Lin et al.,
Microsoft COCO, 2014, https://arxiv.org/abs/1405.0312). pycocotools draws polygons, and compresses.
"""

import reprlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped, UInt8

from jaxvision.data.geometry import Geometry
from jaxvision.errors import UserError

Segmentation = list[array] | dict[str, Any] | None
_FARTHEST = 1e6  # coordinate of a polygon; the work of drawing it grows with its sides
_MOST_DIGITS = 12  # of a compressed run length, of 5 bits each


@dataclass(frozen=True, eq=False)
class Crops:
    """Masks of the objects of an image, each cut out where it has pixels.

    Attributes:
      corners: (top, left) of each crop in the image.
      crops: what is there of each mask; outside of it the mask is False.
      size: (height, width) of the image.
    """

    corners: Int[np.ndarray, "n 2"]
    crops: tuple[Bool[np.ndarray, "_ _"], ...]
    size: tuple[int, int]

    @classmethod
    def of(
        cls, parts: Iterable[tuple[Bool[np.ndarray, "_ _"], tuple[int, int]]], size: tuple[int, int]
    ) -> "Crops":
        """Those of (crop, corner) of each object, in an image of `size`."""
        parts = list(parts)
        corners = np.array([corner for _, corner in parts], np.int64).reshape(-1, 2)
        return cls(corners, tuple(crop for crop, _ in parts), size)

    @classmethod
    def of_stack(cls, masks: Bool[np.ndarray, "n h w"]) -> "Crops":
        """Those of whole masks."""
        height, width = masks.shape[1:]
        return cls.of((_tight(mask, (0, 0)) for mask in masks), (height, width))

    @classmethod
    def of_segmentations(
        cls, segmentations: Sequence[Segmentation], size: tuple[int, int], name: str
    ) -> "Crops":
        """Those of what COCO's files say, see `segmentation_of`; of None there is no pixel.

        Raises:
          UserError: run lengths are of an image of another size; `name` says whose.
        """
        return cls.of(
            (_drawn(one, size, f"{name}: object {k}") for k, one in enumerate(segmentations)), size
        )

    def __len__(self) -> int:
        return len(self.crops)

    def select(self, kept: Bool[np.ndarray, " n"]) -> "Crops":
        """The objects that are kept."""
        chosen = tuple(crop for crop, keep in zip(self.crops, kept, strict=True) if keep)
        return Crops(self.corners[kept], chosen, self.size)

    def any(self) -> Bool[np.ndarray, " n"]:
        """Which masks have a pixel."""
        return np.array([crop.any() for crop in self.crops], bool)

    def move(self, geometry: Geometry) -> "Crops":
        """The masks where their image is moved: what `Geometry.labels` makes of the whole ones."""
        height, width = geometry.size
        parts = zip(self.crops, self.corners.tolist(), strict=True)
        return Crops.of(
            (geometry.crop_of_labels(crop, tuple(corner)) for crop, corner in parts),
            (height, width),
        )

    def stack(self) -> Bool[np.ndarray, "n h w"]:
        """The whole masks, a byte a pixel."""
        masks = np.zeros((len(self), *self.size), bool)
        for mask, crop, (top, left) in zip(masks, self.crops, self.corners.tolist()):
            mask[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
        return masks

    def bits(self) -> UInt8[np.ndarray, "n h p"]:
        """The whole masks, as `jaxvision.ops.bits` packs them."""
        height, width = self.size
        packed = np.zeros((len(self), height, -(-width // 8)), np.uint8)
        for row, crop, (top, left) in zip(packed, self.crops, self.corners.tolist()):
            first, shift = divmod(left, 8)
            part = np.packbits(np.pad(crop, ((0, 0), (shift, 0))), axis=1)
            row[top : top + len(part), first : first + part.shape[1]] = part
        return packed

    def to_rle(self) -> list[dict[str, Any]]:
        """`to_rle` of each."""
        parts = zip(self.crops, self.corners.tolist(), strict=True)
        return [to_rle(crop, tuple(corner), self.size) for crop, corner in parts]


def _tight(
    mask: Bool[np.ndarray, "h w"], corner: tuple[int, int]
) -> tuple[Bool[np.ndarray, "_ _"], tuple[int, int]]:
    """(a copy of the part that has all pixels, its corner); `corner` is that of the mask."""
    rows = np.flatnonzero(mask.any(1))
    if not len(rows):
        return np.zeros((0, 0), bool), (0, 0)
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(mask[top:bottom].any(0))
    left, right = int(columns[0]), int(columns[-1]) + 1
    return mask[top:bottom, left:right].copy(), (corner[0] + top, corner[1] + left)


# -- COCO's polygons and run lengths --------------------------------------------------------------


def segmentation_of(given: Any) -> Segmentation | str:
    """What a COCO file says of an object's mask, checked, with its numbers as arrays.

    Returns:
      Polygons, each (x, y, x, y, ...); or {"size": [height, width], "counts": run lengths as an
      array or compressed as bytes}; None of an object without a mask; or what is wrong with it, a
      text that continues "object 3 ".
    """
    match given:
        case None | []:
            return None
        case {"counts": counts, "size": [int(height), int(width)]} if min(height, width) > 0:
            return _checked_runs(counts, height, width)
        case list() if all(isinstance(one, (list, array, np.ndarray)) for one in given):
            polygons = []
            for one in given:
                polygon = _polygon(one)
                if isinstance(polygon, str):
                    return polygon
                polygons.append(polygon)
            return polygons
    return (
        f"has the segmentation {reprlib.repr(given)}; expected polygons [[x, y, x, y, ...], ...] "
        "or run lengths {'size': [height, width], 'counts': ...}"
    )


def _polygon(given: Any) -> array | str:
    """The coordinates of a polygon, or what is wrong with it."""
    if len(given) < 6 or len(given) % 2:
        return f"has a polygon of {len(given)} numbers; expected x and y of 3 points or more"
    try:
        polygon = array("d", given)
    except (TypeError, OverflowError):
        return f"has the polygon {reprlib.repr(given)}; expected numbers"
    near = np.abs(polygon) < _FARTHEST
    if not near.all():
        worst = polygon[int(near.argmin())]
        return f"has a polygon with the coordinate {worst:g}; expected pixels of the image"
    return polygon


def _checked_runs(counts: Any, height: int, width: int) -> dict[str, Any] | str:
    """Run lengths of an image of this size, or what is wrong with them."""
    found: np.ndarray | None
    if isinstance(counts, (str, bytes)):
        counts = counts.encode("utf-8", "surrogatepass") if isinstance(counts, str) else counts
        found = _decompressed(counts)
    else:
        found = counts = _whole(counts)
    if found is None:
        return "has run lengths that are damaged: no whole numbers, and no compressed ones"
    wrong = found[(found < 0) | (found > height * width)]
    if len(wrong):
        return f"has a run length of {wrong[0]} pixels; its image has {width}x{height}"
    if found.sum() != height * width:
        return f"has run lengths of {found.sum()} pixels in all; expected {width}x{height}"
    return {"size": [height, width], "counts": counts}


def _whole(counts: Any) -> np.ndarray | None:
    """Run lengths as an array; None if they are none."""
    try:
        return np.frombuffer(array("q", counts), np.int64) if len(counts) else np.zeros(0, np.int64)
    except (TypeError, OverflowError):
        return None


def _decompressed(text: bytes) -> np.ndarray | None:
    """Run lengths of pycocotools' compressed form; None if it is damaged.

    Each is written in digits of 5 bits, the lowest first, and from the fourth on as the difference
    to the last but one.
    """
    digits = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    if not len(digits) or digits.min() < 0 or digits.max() > 63 or digits[-1] & 32:
        return None
    ends = np.flatnonzero(~digits & 32)
    starts = np.concatenate([[0], ends[:-1] + 1])
    places = np.arange(len(digits)) - np.repeat(starts, ends - starts + 1)
    if places.max() >= _MOST_DIGITS:
        return None
    counts = np.add.reduceat((digits & 31) << 5 * places, starts)
    counts -= np.where(digits[ends] & 16, 1 << 5 * (places[ends] + 1), 0)
    for first in (1, 2):
        counts[first::2] = np.cumsum(counts[first::2])
    return counts


def _drawn(
    segmentation: Segmentation, size: tuple[int, int], whose: str
) -> tuple[Bool[np.ndarray, "_ _"], tuple[int, int]]:
    """(crop, corner) of a mask.

    Raises:
      UserError: it is of an image of another size.
    """
    from pycocotools import mask as tools

    match segmentation:
        case None:
            return np.zeros((0, 0), bool), (0, 0)
        case {"size": stated, "counts": counts}:
            if tuple(stated) != size:
                raise UserError(
                    f"{whose} has run lengths of {stated[1]}x{stated[0]} pixels, the image has "
                    f"{size[1]}x{size[0]}."
                )
        case _:
            counts = tools.merge(tools.frPyObjects(segmentation, *size))["counts"]
    runs = _decompressed(counts) if isinstance(counts, bytes) else counts
    assert runs is not None  # they were checked, or just made
    return _of_runs(runs, size[0])


def _of_runs(
    counts: Int[np.ndarray, " r"], height: int
) -> tuple[Bool[np.ndarray, "_ _"], tuple[int, int]]:
    """(crop, corner) of run lengths; of the image only the crop's columns are made."""
    borders = np.cumsum(counts)
    stops = borders[1::2]
    starts = borders[::2][: len(stops)]
    there = stops > starts
    starts, stops = starts[there], stops[there]
    if not len(starts):
        return np.zeros((0, 0), bool), (0, 0)
    left, right = int(starts[0]) // height, (int(stops[-1]) - 1) // height + 1
    steps = np.zeros(height * (right - left) + 1, np.int8)
    steps[starts - height * left] += 1
    steps[stops - height * left] -= 1
    columns = np.cumsum(steps[:-1], dtype=np.int8).view(bool).reshape(right - left, height)
    return _tight(columns.T, (0, left))


def to_rle(
    crop: Bool[np.ndarray, "h w"], corner: tuple[int, int], size: tuple[int, int]
) -> dict[str, Any]:
    """A mask as COCO's files have it: {"size": [height, width], "counts": compressed run lengths}.

    Equal to `pycocotools.mask.encode` of the whole mask, of which nothing but the crop is made.

    Args:
      crop: outside of it the mask is False.
      corner: (top, left) of it in the image.
      size: (height, width) of the image.
    """
    from pycocotools import mask as tools

    (top, left), (height, width) = corner, size
    # Columns with a pixel outside above and below: each change is a border of a run.
    columns = np.pad(crop.T, ((0, 0), (1, 1)))
    changes = np.flatnonzero(columns[:, 1:] != columns[:, :-1])
    column, row = np.divmod(changes, len(crop) + 1)
    borders = (left + column) * height + top + row
    # A run that goes on in the next column has no border there.
    joint = np.flatnonzero(borders[1:-1:2] == borders[2::2])
    borders = np.delete(borders, np.concatenate([2 * joint + 1, 2 * joint + 2]))
    counts = np.diff(borders, prepend=0, append=height * width)
    if len(borders) and borders[-1] == height * width:
        counts = counts[:-1]
    runs = {"size": [height, width], "counts": counts.tolist()}
    packed = tools.frPyObjects([runs], height, width)[0]
    return {"size": [height, width], "counts": packed["counts"].decode("ascii")}


# -- what a network finds -------------------------------------------------------------------------


def paste(
    probabilities: Float[np.ndarray, "k m m"],
    boxes: Shaped[np.ndarray, "k 4"],
    size: tuple[int, int],
    threshold: float = 0.5,
) -> Crops:
    """Masks that a network gives on a grid over each box, on the pixels of the photograph.

    They are those of `paste_masks_in_image` of torchvision (He et al., Mask R-CNN, 2017,
    https://arxiv.org/abs/1703.06870) but for pixels where rounding decides: a border of zeros is
    put around the grid, the box grows by its share, its corners are cut to whole pixels, and the
    grid is resized to it by bilinear interpolation. Only what lies in the photograph is computed.

    Args:
      probabilities: of each object, that a cell of the grid is in its mask.
      boxes: (x0, y0, x1, y1) in pixels of the photograph.
      size: (height, width) of the photograph.
      threshold: a pixel is in the mask where its probability is larger.
    """
    cells = probabilities.shape[-1]
    boxes = np.asarray(boxes, np.float32)
    half = (boxes[:, 2:] - boxes[:, :2]) * np.float32(0.5) * ((cells + 2) / cells)
    centre = (boxes[:, 2:] + boxes[:, :2]) * np.float32(0.5)
    low, high = (centre - half).astype(np.int64), (centre + half).astype(np.int64)

    def pasted(grid: np.ndarray, low: np.ndarray, high: np.ndarray):
        first, last = np.maximum(low, 0), np.minimum(high + 1, size[::-1])
        if (last <= first).any():
            return np.zeros((0, 0), bool), (0, 0)
        sides = high - low + 1
        # Rows, then columns; rows of an array are copied faster than columns.
        for axis in (1, 0):
            grid = _resized(grid, int(sides[axis]), first[axis] - low[axis], last[axis] - low[axis])
            grid = np.ascontiguousarray(grid.T) if axis else grid.T
        return grid > threshold, (int(first[1]), int(first[0]))

    grids = np.pad(np.asarray(probabilities, np.float32), ((0, 0), (1, 1), (1, 1)))
    return Crops.of((pasted(*one) for one in zip(grids, low, high, strict=True)), size)


def _resized(
    rows: Float[np.ndarray, "m w"], size: int, first: int, last: int
) -> Float[np.ndarray, "n w"]:
    """The rows `first` to `last` of what bilinear interpolation makes of `rows` in `size` rows."""
    places = np.maximum((np.arange(first, last) + 0.5) * (len(rows) / size) - 0.5, 0)
    upper = places.astype(np.int64)
    share = (places - upper).astype(np.float32)[:, None]
    found, lower = rows[upper], rows[np.minimum(upper + 1, len(rows) - 1)]
    found *= 1 - share
    lower *= share
    found += lower
    return found
