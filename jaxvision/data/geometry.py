"""How an image came to another size: one affine map, which annotations and predictions follow.

The convention is that of `jaxvision.ops.geometry`: coordinates are (x, y) in pixels, y pointing
down, and pixel i covers the interval [i, i + 1). Sizes are (height, width).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Shaped

from jaxvision.data.label_maps import IGNORE
from jaxvision.data.resizing import OPENCV, pair, resize_image, resize_mask
from jaxvision.errors import UserError, unknown

# What float32 leaves of a coordinate of some thousand pixels is exact to this.
_ROUNDING = 1e-3
# A centre on the border of two pixels belongs to the later one, whatever the rounding.
_TIE = 1e-4


class _Span(NamedTuple):
    """Pixels `source` along one axis, which are seen as the pixels `output`."""

    source: slice
    output: slice
    flipped: bool

    @property
    def length(self) -> int:
        return self.output.stop - self.output.start


@dataclass(frozen=True)
class Geometry:
    """An affine map of the pixels of a source image to those of an output image.

    Attributes:
      affine: a, b, x, c, d, y of the matrix [[a, b, x], [c, d, y], [0, 0, 1]].
      source: size of the source, (height, width). A volume's has three axes, and no other geometry
        than the identity.
      size: size of the output.
    """

    affine: tuple[float, float, float, float, float, float]
    source: tuple[int, ...]
    size: tuple[int, ...]

    @classmethod
    def identity(cls, size: tuple[int, ...]) -> "Geometry":
        """An image, or a volume, as it is."""
        return cls((1.0, 0.0, 0.0, 0.0, 1.0, 0.0), size, size)

    @classmethod
    def crop(
        cls, source: tuple[int, ...], top: int, left: int, height: int, width: int
    ) -> "Geometry":
        """Cuts a window; what of it lies outside of the source is padding."""
        return cls((1.0, 0.0, float(-left), 0.0, 1.0, float(-top)), source, (height, width))

    @classmethod
    def pad(
        cls, source: tuple[int, ...], top: int, left: int, height: int, width: int
    ) -> "Geometry":
        """Puts the source at (top, left) of an output of (height, width)."""
        return cls.crop(source, -top, -left, height, width)

    @classmethod
    def resize(cls, source: tuple[int, ...], size: tuple[int, int]) -> "Geometry":
        """Stretches the source to `size`."""
        (height, width), (rows, columns) = source, size
        return cls((columns / width, 0.0, 0.0, 0.0, rows / height, 0.0), source, size)

    @classmethod
    def window(
        cls,
        source: tuple[int, ...],
        top: int,
        left: int,
        height: int,
        width: int,
        size: tuple[int, int],
    ) -> "Geometry":
        """Cuts a window and stretches it to `size`."""
        down, across = size[0] / height, size[1] / width
        return cls((across, 0.0, -left * across, 0.0, down, -top * down), source, size)

    @classmethod
    def flip(cls, source: tuple[int, ...], *, vertical: bool = False) -> "Geometry":
        """Mirrors left to right, or top to bottom."""
        height, width = source
        if vertical:
            return cls((1.0, 0.0, 0.0, 0.0, -1.0, float(height)), source, source)
        return cls((-1.0, 0.0, float(width), 0.0, 1.0, 0.0), source, source)

    @classmethod
    def from_array(
        cls, matrix: Shaped[np.ndarray, "3 3"], source: tuple[int, ...], size: tuple[int, ...]
    ) -> "Geometry":
        """What `as_array` gave, with the sizes, which it leaves out."""
        (a, b, x), (c, d, y) = np.asarray(matrix, np.float64)[:2].tolist()
        return cls((a, b, x, c, d, y), tuple(map(int, source)), tuple(map(int, size)))

    def as_array(self) -> Float[np.ndarray, "3 3"]:
        """The matrix in float32, as batches carry it."""
        array = np.zeros((3, 3), np.float32)
        array.flat[:6] = self.affine
        array[2, 2] = 1
        return array

    @property
    def matrix(self) -> Float[np.ndarray, "3 3"]:
        """The matrix in float64."""
        return np.array((*self.affine, 0.0, 0.0, 1.0)).reshape(3, 3)

    @property
    def determinant(self) -> float:
        """By what areas are multiplied; negative where left and right are exchanged."""
        a, b, _, c, d, _ = self.affine
        return a * d - b * c

    @property
    def mirrors(self) -> bool:
        """Whether left and right are exchanged."""
        return self.determinant < 0

    @property
    def inverse(self) -> "Geometry":
        """The way back, from the output to the source.

        Raises:
          UserError: the map is singular.
        """
        a, b, x, c, d, y = self.affine
        determinant = self.determinant
        if not determinant or not math.isfinite(determinant):
            raise UserError(f"There is no way back along the matrix {self.matrix.tolist()}.")
        a, b, c, d = d / determinant, -b / determinant, -c / determinant, a / determinant
        return Geometry((a, b, -(a * x + b * y), c, d, -(c * x + d * y)), self.size, self.source)

    def then(self, other: "Geometry") -> "Geometry":
        """This map, and after it another.

        Raises:
          UserError: the other is for images of another size.
        """
        if other.source != self.size:
            raise UserError(
                f"A geometry of {other.source} pixels cannot follow one to {self.size}."
            )
        a, b, x, c, d, y = self.affine
        e, f, u, g, h, v = other.affine
        affine = (
            e * a + f * c, e * b + f * d, e * x + f * y + u,
            g * a + h * c, g * b + h * d, g * x + h * y + v,
        )  # fmt: skip
        return Geometry(affine, self.source, other.size)

    # -- what lies on the image -------------------------------------------------------------------

    def points(self, points: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
        """Points (x, y), moved; they may lie outside of the output."""
        a, b, x, c, d, y = self.affine
        across, down = points[..., 0].astype(np.float64), points[..., 1].astype(np.float64)
        moved = np.stack([a * across + b * down + x, c * across + d * down + y], axis=-1)
        return moved.astype(np.float32)

    def boxes(self, boxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
        """Hulls of the moved boxes (x0, y0, x1, y1), clipped to the output.

        A box of which nothing is left has a width or height of 0.
        """
        corners = self.points(boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2))
        hulls = np.concatenate([corners.min(1), corners.max(1)], axis=-1)
        height, width = self.size
        return np.clip(hulls, 0, np.array([width, height, width, height], np.float32))

    def labels(
        self, labels: Shaped[np.ndarray, "*size"], fill: int = IGNORE
    ) -> Shaped[np.ndarray, "*moved"]:
        """A label map of the source, moved by nearest neighbour with pixel centres aligned.

        Args:
          labels: [h, w] of any integers or booleans, or a volume's.
          fill: value of what lies outside of the source.
        """
        if len(self.source) != 2:
            return labels
        if self._spans is None:
            return _sample(labels, self.inverse, fill)
        rows, columns = self._spans
        part = _cut(labels, rows, columns)
        if part.size and part.shape != (rows.length, columns.length):
            plain = part.view(np.uint8) if part.dtype == bool else part
            part = resize_mask(plain, (rows.length, columns.length)).view(part.dtype)
        return self._placed(part, fill)

    def crop_of_labels(
        self, crop: Shaped[np.ndarray, "h w"], corner: tuple[int, int]
    ) -> tuple[Shaped[np.ndarray, "_ _"], tuple[int, int]]:
        """A part of a label map of the source, moved as `labels` moves the whole.

        Args:
          crop: outside of it the map is 0.
          corner: (top, left) of it in the source.

        Returns:
          The part of the moved map that may be other than 0, and its corner.
        """
        (top, left), (height, width) = corner, crop.shape
        if not crop.size:
            return crop, (0, 0)
        if self._taken is None:
            return self._warped_crop(crop, top, left)
        rows = np.flatnonzero((self._taken[0] >= top) & (self._taken[0] < top + height))
        columns = np.flatnonzero((self._taken[1] >= left) & (self._taken[1] < left + width))
        if not len(rows) or not len(columns):
            return np.zeros((0, 0), crop.dtype), (0, 0)
        down, across = self._taken[0][rows] - top, self._taken[1][columns] - left
        return crop[down].take(across, axis=1), (int(rows[0]), int(columns[0]))

    def image(
        self,
        image: Shaped[np.ndarray, "*size c"],
        interpolation: str = "bilinear",
        antialias: bool = True,
        fill: int | Sequence[int] = 0,
    ) -> Shaped[np.ndarray, "*moved c"]:
        """An image of the source, moved.

        Where whole pixels of the source become whole pixels of the output (crops, resizing, padding
        and flips), the part is cut out, resized and padded, each exactly; any other map, a rotation
        for one, samples the source once, between two of its pixels. With `antialias` a source that
        becomes less than half as large is made smaller before, by a whole number.

        Args:
          image: uint8 [h, w, c]; a volume stays as it is.
          interpolation: see `resize_image`.
          antialias: see `resize_image`.
          fill: value of what lies outside of the source, or one for each channel.
        """
        if len(self.source) != 2:
            return image
        if self._spans is None:
            return self._warped(image, interpolation, antialias, fill)
        rows, columns = self._spans
        part = _cut(image, rows, columns)
        if part.size:
            part = resize_image(part, (rows.length, columns.length), interpolation, antialias)
        return self._placed(part, fill)

    # -- the way back -----------------------------------------------------------------------------

    def inverse_points(self, points: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
        """Points (x, y) of the output as points of the source."""
        return self.inverse.points(points)

    def inverse_boxes(self, boxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
        """Boxes of the output as boxes of the source, clipped to it."""
        return self.inverse.boxes(boxes)

    def restore_labels(
        self, labels: Shaped[np.ndarray, "*moved"], fill: int = IGNORE
    ) -> Shaped[np.ndarray, "*size"]:
        """A label map of the output, on the pixels of the source.

        Every pixel of the source takes the value where its centre lies in the output; padding of
        the output falls on none of them.

        Args:
          labels: of the output, or of a copy of it in another size (a network's coarser map).
          fill: value of the source's pixels that are not in the output.
        """
        if len(self.source) != 2:
            return _stretched(labels, self.source)
        there = self.then(Geometry.resize(self.size, labels.shape[:2]))
        return _sample(labels, there, fill)

    # -- parts ------------------------------------------------------------------------------------

    @cached_property
    def _spans(self) -> tuple[_Span, _Span] | None:
        """Rows and columns that are seen, if they are whole pixels on both sides."""
        a, b, x, c, d, y = self.affine
        if b or c or not a or not d:
            return None
        rows = _span(d, y, self.source[0], self.size[0])
        columns = _span(a, x, self.source[1], self.size[1])
        return None if rows is None or columns is None else (rows, columns)

    @cached_property
    def _taken(self) -> tuple[np.ndarray, np.ndarray] | None:
        """From which rows and columns of the source `labels` takes those of the output; -1: none.

        None where an output's row is of several of the source.
        """
        if self._spans is not None:
            rows, columns = map(_taken_along, self._spans, self.size)
            return rows, columns
        there = self.inverse
        if there.affine[1] or there.affine[3]:
            return None
        (height, width), (rows, columns) = self.source, _places(there, (0, 0), self.size)
        return (
            np.where((rows >= 0) & (rows < height), rows, -1).ravel(),
            np.where((columns >= 0) & (columns < width), columns, -1).ravel(),
        )

    def _warped_crop(
        self, crop: np.ndarray, top: int, left: int
    ) -> tuple[np.ndarray, tuple[int, int]]:
        """`crop_of_labels` of a map that turns or shears."""
        height, width = crop.shape
        low, high = (left - _ROUNDING, top - _ROUNDING), (left + width, top + height)
        corners = np.array([low, high, (low[0], high[1]), (high[0], low[1])])
        hull = self.points(corners)[:, ::-1]
        first = np.clip(np.floor(hull.min(0)) - 1, 0, self.size).astype(int)
        last = np.clip(np.ceil(hull.max(0)) + 1, 0, self.size).astype(int)
        row, column = _places(self.inverse, tuple(first), tuple(last))
        row, column = row - top, column - left
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        moved = np.zeros(inside.shape, crop.dtype)
        moved[inside] = crop[row[inside], column[inside]]
        return moved, (int(first[0]), int(first[1]))

    def _placed(self, part: np.ndarray, fill: int | Sequence[int]) -> np.ndarray:
        """What is seen, in its place of the output."""
        if part.shape[:2] == self.size:
            return part
        rows, columns = self._spans  # type: ignore[misc]
        whole = np.full((*self.size, *part.shape[2:]), fill, part.dtype)
        whole[rows.output, columns.output] = part
        return whole

    def _warped(
        self, image: np.ndarray, interpolation: str, antialias: bool, fill: int | Sequence[int]
    ) -> np.ndarray:
        """Sampled anew; OpenCV counts from the centre of the first pixel."""
        if interpolation not in OPENCV:
            raise unknown("interpolation", interpolation, OPENCV)
        there, size = self, abs(self.determinant)
        if antialias and 0 < size < 0.25:
            fewer = int(size**-0.5)
            small = pair([max(1, round(side / fewer)) for side in self.source])
            image = resize_image(image, small, "area")
            there = Geometry.resize(self.source, small).inverse.then(self)
        a, b, x, c, d, y = there.affine
        matrix = np.array(
            [[a, b, x + (a + b) / 2 - 0.5], [c, d, y + (c + d) / 2 - 0.5]], np.float64
        )
        height, width = self.size
        moved = cv2.warpAffine(
            image, matrix, (width, height),
            flags=OPENCV["bilinear" if interpolation == "area" else interpolation],
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=np.broadcast_to(fill, image.shape[-1]).tolist(),
        )  # fmt: skip
        return moved.reshape(height, width, image.shape[-1])


def _span(scale: float, shift: float, source: int, output: int) -> _Span | None:
    """What is seen of one axis, or None where it is a part of a pixel.

    It is worked out for every record, with no more function calls than it needs.
    """
    low, high = -shift / scale, (output - shift) / scale
    if scale < 0:
        low, high = high, low
    low, high = low if low > 0 else 0.0, high if high < source else float(source)
    if high <= low:
        return _Span(slice(0, 0), slice(0, 0), False)
    start, stop = scale * low + shift, scale * high + shift
    if scale < 0:
        start, stop = stop, start
    first, last = int(low + 0.5), int(high + 0.5)  # rounds, for none is below -0.5
    begin, end = int(start + 0.5), int(stop + 0.5)
    if not (
        -_ROUNDING < low - first < _ROUNDING
        and -_ROUNDING < high - last < _ROUNDING
        and -_ROUNDING < start - begin < _ROUNDING
        and -_ROUNDING < stop - end < _ROUNDING
    ):
        return None
    return _Span(slice(first, last), slice(begin, end), scale < 0)


def _cut(array: np.ndarray, rows: _Span, columns: _Span) -> np.ndarray:
    part = array[rows.source, columns.source]
    if rows.flipped:
        part = part[::-1]
    if columns.flipped:
        part = part[:, ::-1]
    return np.ascontiguousarray(part) if rows.flipped or columns.flipped else part


def _nearest(places: np.ndarray) -> np.ndarray:
    return np.floor(places + _TIE).astype(np.int64)


def _taken_along(span: _Span, length: int) -> np.ndarray:
    """The pixel of the source that each of the output's is of, along one axis; -1: none."""
    places = np.arange(span.source.start, span.source.stop, dtype=np.int32)
    if span.flipped:
        places = places[::-1].copy()
    if len(places) and len(places) != span.length:
        places = resize_mask(places[None], (1, span.length))[0]
    taken = np.full(length, -1, np.int32)
    taken[span.output] = places
    return taken


def _places(
    there: Geometry, first: tuple[int, ...], last: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """(row, column) on which the centres of the pixels of `there.source` from `first` to `last`
    fall, which broadcast to each other."""
    a, b, x, c, d, y = there.affine
    down = np.arange(first[0], last[0])[:, None] + 0.5
    across = np.arange(first[1], last[1])[None, :] + 0.5
    if not b and not c:
        return _nearest(d * down + y), _nearest(a * across + x)
    return _nearest(c * across + d * down + y), _nearest(a * across + b * down + x)


def _sample(labels: np.ndarray, there: Geometry, fill: int) -> np.ndarray:
    """For every pixel of `there.source` the label on which its centre falls; `fill` outside."""
    rows, columns = labels.shape[:2]
    row, column = _places(there, (0, 0), there.source)
    inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    found = labels[np.clip(row, 0, rows - 1), np.clip(column, 0, columns - 1)]
    return np.where(inside, found, np.asarray(fill, labels.dtype))


def _stretched(labels: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """A label map of any number of axes, by nearest neighbour with centres aligned."""
    for axis, (have, want) in enumerate(zip(labels.shape, size)):
        if have != want:
            place = _nearest((np.arange(want) + 0.5) * have / want)
            labels = np.take(labels, np.minimum(place, have - 1), axis=axis)
    return labels
