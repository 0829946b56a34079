"""Anchors, default boxes and points: constants that a network's predictions are relative to.

Computed on the host, in float32 or float64 and in the order of operations of each reference, so
that they are equal to the last bit. Places go by rows, then columns, then the shapes at a place.
"""

from collections.abc import Sequence
from math import sqrt

import numpy as np
from jaxtyping import Float32

Number = float | int
Size = tuple[int, int]  # (height, width), of a map or an image
Boxes = Float32[np.ndarray, "n 4"]


def _pair(value: Number | Sequence[Number]) -> tuple[Number, Number]:
    return (value, value) if isinstance(value, int | float) else (value[0], value[1])


def _places(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(x, y) [rows * columns, 2] of every place of a map."""
    y, x = np.meshgrid(rows, columns, indexing="ij")
    return np.stack([x.ravel(), y.ravel()], -1)


def _as_many(what: str, values: Sequence, levels: int) -> None:
    if len(values) != levels:
        raise ValueError(f"{levels} maps need as many {what}; there are {len(values)}.")


def cell_anchors(sizes: Sequence[Number], ratios: Sequence[Number]) -> Boxes:
    """Anchors around (0, 0), rounded to pixels, by ratios and then sizes.

    Ren et al., Faster R-CNN, 2015, https://arxiv.org/abs/1506.01497; torchvision's
    `AnchorGenerator`.

    Args:
      sizes: square roots of the areas, in pixels.
      ratios: height divided by width.
    """
    tall = np.sqrt(np.asarray(ratios, np.float32))[:, None]
    size = np.asarray(sizes, np.float32)
    widths, heights = (1 / tall * size).ravel(), (tall * size).ravel()
    return np.round(np.stack([-widths, -heights, widths, heights], 1) / 2)


def grid_anchors(
    cell_anchors: Float32[np.ndarray, "k 4"], feature_size: Size, stride: Number | Sequence[Number]
) -> Boxes:
    """The anchors of a cell around every place of a map, [h * w * k, 4].

    Args:
      cell_anchors: [k, 4] around the first place.
      feature_size: (height, width) of the map.
      stride: of the map, in pixels; one number or (vertical, horizontal). torchvision takes the
        image's size // the map's.
    """
    height, width = feature_size
    down, right = np.asarray(_pair(stride), np.float32)
    rows, columns = (np.arange(n, dtype=np.float32) for n in (height, width))
    shifts = np.tile(_places(rows * down, columns * right), 2)
    return (shifts[:, None] + cell_anchors).reshape(-1, 4)


def points(
    feature_size: Size, stride: Number | Sequence[Number], offset: Number = 0.5
) -> Float32[np.ndarray, "n 2"]:
    """Where the places of a map lie in the image, (x, y) in pixels.

    Tian et al., FCOS, 2019, https://arxiv.org/abs/1904.01355, section 3.1.

    Args:
      feature_size: (height, width) of the map.
      stride: of the map, in pixels; one number or (vertical, horizontal).
      offset: of the first place, in strides: 0.5 is the middle of a cell, 0 what torchvision's FCOS
        has.
    """
    height, width = feature_size
    down, right = _pair(stride)
    rows, columns = (np.arange(n, dtype=np.float32) + np.float32(offset) for n in (height, width))
    return _places(rows * np.float32(down), columns * np.float32(right))


def _even_scales(levels: int, low: float, high: float) -> list[float]:
    if levels == 1:
        return [low, high]
    span = high - low
    return [low + span * k / (levels - 1.0) for k in range(levels)] + [1.0]


def default_boxes(
    ratios: Sequence[Sequence[Number]],
    feature_sizes: Sequence[Size],
    image_size: Size,
    *,
    scales: Sequence[Number] | None = None,
    min_scale: float = 0.15,
    max_scale: float = 0.9,
    steps: Sequence[Number] | None = None,
    clip: bool = True,
) -> Boxes:
    """SSD's default boxes of all its maps, in pixels: 2 + 2 * ratios at each place.

    Liu et al., SSD, 2015, https://arxiv.org/abs/1512.02325, section 2.2; torchvision's
    `DefaultBoxGenerator`.

    Args:
      ratios: of each map, beside the two squares of every map; a ratio stands for its inverse too.
      feature_sizes: (height, width) of each map.
      image_size: (height, width) in pixels.
      scales: sizes of each map's boxes as shares of the image, and one more for the last map's
        larger square. By default evenly spaced, then 1.
      min_scale, max_scale: what they are spaced between; not used where there are `scales`.
      steps: the stride of each map in pixels; by default the image's size / the map's.
      clip: whether no box is larger than the image. (They reach beyond its edges all the same.)

    Raises:
      ValueError: not as many ratios, scales or steps as maps.
    """
    levels = len(feature_sizes)
    if scales is None:
        scales = _even_scales(levels, min_scale, max_scale)
    _as_many("lists of ratios", ratios, levels)
    _as_many("scales, and one more,", scales[1:], levels)
    if steps is not None:
        _as_many("steps", steps, levels)
    found = []
    for k, (rows, columns) in enumerate(feature_sizes):
        size, larger = scales[k], sqrt(scales[k] * scales[k + 1])
        sides = [(size, size), (larger, larger)]
        for ratio in ratios[k]:
            wide, tall = size * sqrt(ratio), size / sqrt(ratio)
            sides += [(wide, tall), (tall, wide)]
        shapes = np.asarray(sides, np.float32)
        if clip:
            shapes = np.clip(shapes, 0, 1)
        across = [side / steps[k] for side in image_size] if steps else [rows, columns]
        y, x = (
            (np.arange(count, dtype=np.float32) + np.float32(0.5)) / np.float32(number)
            for count, number in zip((rows, columns), across)
        )
        centers = np.repeat(_places(y, x), len(shapes), 0)
        half = np.float32(0.5) * np.tile(shapes, (rows * columns, 1))
        pixels = np.asarray(image_size[::-1], np.float32)
        found.append(np.concatenate([(centers - half) * pixels, (centers + half) * pixels], 1))
    return np.concatenate(found)


def yolo_anchors(
    sizes: Sequence[Sequence[Sequence[Number]]],
    feature_sizes: Sequence[Size],
    strides: Sequence[Number],
) -> Boxes:
    """Boxes of given widths and heights around the middle of every cell, of all maps.

    Redmon and Farhadi, YOLOv3, 2018, https://arxiv.org/abs/1804.02767; mmdetection's
    `YOLOAnchorGenerator`.

    Args:
      sizes: (width, height) in pixels of each map's anchors.
      feature_sizes: (height, width) of each map.
      strides: of each map, in pixels.

    Raises:
      ValueError: not as many lists of sizes or strides as maps.
    """
    _as_many("lists of sizes", sizes, len(feature_sizes))
    _as_many("strides", strides, len(feature_sizes))
    found = []
    for shapes, feature_size, stride in zip(sizes, feature_sizes, strides):
        half, middle = 0.5 * np.asarray(shapes, np.float64), stride / 2
        cell = np.concatenate([middle - half, middle + half], 1).astype(np.float32)
        found.append(grid_anchors(cell, feature_size, stride))
    return np.concatenate(found)


def efficientdet_anchors(
    image_size: Size,
    *,
    levels: tuple[int, int] = (3, 7),
    scales: int = 3,
    ratios: Sequence[Number | tuple[Number, Number]] = ((1.0, 1.0), (1.4, 0.7), (0.7, 1.4)),
    anchor_scale: Number = 4.0,
) -> Boxes:
    """EfficientDet's anchors of all its maps, by scales and then ratios at each place.

    Tan et al., EfficientDet, 2019, https://arxiv.org/abs/1911.09070; effdet's `Anchors`, which
    gives (y0, x0, y1, x1).

    Args:
      image_size: (height, width) in pixels.
      levels: the first and the last one; level k has a stride of about 2 ** k.
      scales: how many sizes there are in an octave.
      ratios: (width, height) of an anchor beside its size, or width divided by height.
      anchor_scale: the size of the smallest anchor, in strides.
    """
    shapes = []
    for octave in range(scales):
        for ratio in ratios:
            if isinstance(ratio, int | float):
                wide = float(np.sqrt(ratio))
                tall = 1.0 / wide
            else:
                wide, tall = ratio
            shapes.append((2 ** (octave / float(scales)), wide, tall))
    found = []
    height, width = image_size
    for level in range(levels[1] + 1):
        if level >= levels[0]:
            down, right = image_size[0] / float(height), image_size[1] / float(width)
            halves = np.array(
                [
                    (
                        anchor_scale * right * size * wide / 2.0,
                        anchor_scale * down * size * tall / 2.0,
                    )
                    for size, wide, tall in shapes
                ]
            )
            rows = np.arange(down / 2, image_size[0], down)
            centers = _places(rows, np.arange(right / 2, image_size[1], right))[:, None]
            boxes = np.concatenate([centers - halves, centers + halves], -1)
            found.append(boxes.reshape(-1, 4).astype(np.float32))
        height, width = (height - 1) // 2 + 1, (width - 1) // 2 + 1
    return np.concatenate(found)
