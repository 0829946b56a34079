"""Boxes (x0, y0, x1, y1): areas, overlaps, and the codings that networks predict them by.

Leading axes broadcast, so that one set of anchors serves a batch. A coding is a pair: `encode_*`
gives what a head should predict for a box, `decode_*` the box of a prediction. Boxes without width
or height, as padding has them, give finite numbers and gradients everywhere.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

# So that exp() of a prediction is no more than this many times the anchor: torchvision's bound.
MAX_LOG_SCALE = math.log(1000 / 16)


def _columns(boxes: Array) -> tuple[Array, ...]:
    # One array a coordinate: XLA fuses what follows into one pass over pairs of boxes.
    return tuple(boxes[..., index] for index in range(boxes.shape[-1]))


def _positive(sides: Array) -> Array:
    """Sides to divide by and to take logarithms of: 1 where there is none."""
    return jnp.where(sides > 0, sides, 1.0)


def area(boxes: Float[Array, "*b 4"]) -> Float[Array, "*b"]:
    """Width times height; 0 where a box ends before it begins."""
    x0, y0, x1, y1 = _columns(boxes)
    return jnp.maximum(x1 - x0, 0) * jnp.maximum(y1 - y0, 0)


def _shared_and_union(boxes: Array, others: Array) -> tuple[Array, Array]:
    a, b = _columns(boxes), _columns(others)
    width = jnp.minimum(a[2], b[2]) - jnp.maximum(a[0], b[0])
    height = jnp.minimum(a[3], b[3]) - jnp.maximum(a[1], b[1])
    # Boxes that only touch have no gradient: jnp.maximum would give half of it.
    shared = jax.nn.relu(width) * jax.nn.relu(height)
    return shared, area(boxes) + area(others) - shared


def _enclosing(boxes: Array, others: Array) -> tuple[Array, Array]:
    """Width and height of the smallest box around both."""
    a, b = _columns(boxes), _columns(others)
    width = jnp.maximum(a[2], b[2]) - jnp.minimum(a[0], b[0])
    return width, jnp.maximum(a[3], b[3]) - jnp.minimum(a[1], b[1])


def iou(boxes: Float[Array, "... 4"], others: Float[Array, "... 4"]) -> Float[Array, "..."]:
    """Intersection over union, pair by pair; 0 where both boxes are empty."""
    shared, union = _shared_and_union(boxes, others)
    return shared / _positive(union)


def giou(
    boxes: Float[Array, "... 4"], others: Float[Array, "... 4"], epsilon: float = 0.0
) -> Float[Array, "..."]:
    """IoU less the empty share of the smallest box around both, pair by pair: -1 to 1.

    Rezatofighi et al., Generalized Intersection over Union, 2019,
    https://arxiv.org/abs/1902.09630.

    Args:
      boxes, others: the pairs.
      epsilon: added to what is divided by, as losses do. Without it, what is 0 / 0 is 0.
    """
    shared, union = _shared_and_union(boxes, others)
    width, height = _enclosing(boxes, others)
    around = width * height
    return shared / _positive(union + epsilon) - (around - union) / _positive(around + epsilon)


def diou(
    boxes: Float[Array, "... 4"], others: Float[Array, "... 4"], epsilon: float = 0.0
) -> Float[Array, "..."]:
    """IoU less the squared distance of the centres over that of the enclosing box's corners.

    Zheng et al., Distance-IoU Loss, 2019, https://arxiv.org/abs/1911.08287.

    Args:
      boxes, others, epsilon: see `giou`.
    """
    shared, union = _shared_and_union(boxes, others)
    width, height = _enclosing(boxes, others)
    a, b = _columns(boxes), _columns(others)
    apart = ((a[0] + a[2] - b[0] - b[2]) / 2) ** 2 + ((a[1] + a[3] - b[1] - b[3]) / 2) ** 2
    return shared / _positive(union + epsilon) - apart / _positive(width**2 + height**2 + epsilon)


def pairwise_iou(
    boxes: Float[Array, "*b n 4"], others: Float[Array, "*b m 4"]
) -> Float[Array, "*b n m"]:
    """`iou` of every box with every other one."""
    return iou(boxes[..., :, None, :], others[..., None, :, :])


def pairwise_giou(
    boxes: Float[Array, "*b n 4"], others: Float[Array, "*b m 4"]
) -> Float[Array, "*b n m"]:
    """`giou` of every box with every other one."""
    return giou(boxes[..., :, None, :], others[..., None, :, :])


def pairwise_ioa(
    boxes: Float[Array, "*b n 4"], others: Float[Array, "*b m 4"]
) -> Float[Array, "*b n m"]:
    """Which share of each box every other one covers: how COCO compares boxes with crowds."""
    shared, _ = _shared_and_union(boxes[..., :, None, :], others[..., None, :, :])
    return shared / _positive(area(boxes))[..., None]


def to_centers(boxes: Float[Array, "*b 4"]) -> Float[Array, "*b 4"]:
    """(x0, y0, x1, y1) to (centre x, centre y, width, height)."""
    x0, y0, x1, y1 = _columns(boxes)
    return jnp.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], -1)


def from_centers(centers: Float[Array, "*b 4"]) -> Float[Array, "*b 4"]:
    """(centre x, centre y, width, height) to (x0, y0, x1, y1)."""
    middle, half = centers[..., :2], centers[..., 2:] / 2
    return jnp.concatenate([middle - half, middle + half], -1)


def clip(
    boxes: Float[Array, "*b 4"],
    height: Num[Array, "..."] | float | int,
    width: Num[Array, "..."] | float | int,
) -> Float[Array, "*b 4"]:
    """The part of each box inside an image of this size, in pixels."""
    x0, y0, x1, y1 = _columns(boxes)
    sides = [(x0, width), (y0, height), (x1, width), (y1, height)]
    return jnp.stack([jnp.clip(value, 0, side) for value, side in sides], -1)


def encode_deltas(
    boxes: Float[Array, "... 4"],
    anchors: Float[Array, "... 4"],
    weights: Sequence[float | int] = (1.0, 1.0, 1.0, 1.0),
) -> Float[Array, "... 4"]:
    """How to move and scale anchors onto boxes: R-CNN's coding, and with other weights SSD's.

    Girshick et al., Rich feature hierarchies, 2013, https://arxiv.org/abs/1311.2524, appendix C;
    the numbers are those of torchvision's `BoxCoder`. A side of 0 counts as one of length 1.

    Args:
      boxes: what should be predicted.
      anchors: what it is predicted from.
      weights: of x, y, width and height; SSD has 10, 10, 5, 5.

    Returns:
      (x, y, log width, log height) relative to the anchor, times the weights.
    """
    x, y, w, h = _columns(to_centers(boxes))
    anchor_x, anchor_y, anchor_w, anchor_h = _columns(to_centers(anchors))
    w, h, anchor_w, anchor_h = (_positive(side) for side in (w, h, anchor_w, anchor_h))
    return jnp.stack(
        [
            weights[0] * (x - anchor_x) / anchor_w,
            weights[1] * (y - anchor_y) / anchor_h,
            weights[2] * jnp.log(w / anchor_w),
            weights[3] * jnp.log(h / anchor_h),
        ],
        -1,
    )


def decode_deltas(
    deltas: Float[Array, "... 4"],
    anchors: Float[Array, "... 4"],
    weights: Sequence[float | int] = (1.0, 1.0, 1.0, 1.0),
    max_log_scale: float = MAX_LOG_SCALE,
) -> Float[Array, "... 4"]:
    """The boxes that `encode_deltas` gives these numbers for.

    Args:
      deltas: as a head predicts them.
      anchors: what they are relative to.
      weights: those of the encoding.
      max_log_scale: by which a width or height grows at most; `math.inf` for no bound.
    """
    x, y, w, h = _columns(to_centers(anchors))
    dx, dy, dw, dh = (d / weight for d, weight in zip(_columns(deltas), weights, strict=True))
    scale_x, scale_y = (jnp.exp(jnp.minimum(d, max_log_scale)) for d in (dw, dh))
    return from_centers(jnp.stack([dx * w + x, dy * h + y, scale_x * w, scale_y * h], -1))


def encode_distances(
    boxes: Float[Array, "... 4"],
    points: Float[Array, "... 2"],
    scale: Float[Array, "..."] | float | int = 1.0,
) -> Float[Array, "... 4"]:
    """How far a box's sides are from a point, (left, top, right, bottom): FCOS's coding.

    Tian et al., FCOS, 2019, https://arxiv.org/abs/1904.01355, equation 1. A distance is negative
    where the point is outside.

    Args:
      boxes: what should be predicted.
      points: (x, y) in pixels.
      scale: the distance that counts as 1, such as the stride of the point's level.
    """
    before, after = points - boxes[..., :2], boxes[..., 2:] - points
    return jnp.concatenate([before, after], -1) / jnp.asarray(scale)[..., None]


def decode_distances(
    distances: Float[Array, "... 4"],
    points: Float[Array, "... 2"],
    scale: Float[Array, "..."] | float | int = 1.0,
) -> Float[Array, "... 4"]:
    """The boxes that `encode_distances` gives these numbers for."""
    distances = distances * jnp.asarray(scale)[..., None]
    return jnp.concatenate([points - distances[..., :2], points + distances[..., 2:]], -1)


def encode_yolo(
    boxes: Float[Array, "... 4"],
    cells: Num[Array, "... 2"],
    priors: Float[Array, "... 2"],
    stride: Float[Array, "... 1"] | float | int,
    epsilon: float = 1e-6,
) -> Float[Array, "... 4"]:
    """Where in its cell a box's centre is and how large it is beside a prior: YOLO v2 and v3.

    Redmon and Farhadi, YOLO9000, 2016, https://arxiv.org/abs/1612.08242, figure 3; the numbers are
    those of mmdetection's `YOLOBBoxCoder`.

    Args:
      boxes: what should be predicted.
      cells: (column, row) of the cell that predicts each.
      priors: (width, height) of the anchors, in pixels.
      stride: the side of a cell, in pixels; one number, or one for each.
      epsilon: how near 0 and 1 a place, and how near 0 a scale may come.

    Returns:
      (x, y) in the cell, 0 to 1: what the *sigmoid* of a prediction should be; then log(width /
      prior) and log(height / prior).
    """
    centers = to_centers(boxes)
    place = jnp.clip(centers[..., :2] / stride - cells, epsilon, 1 - epsilon)
    scale = jnp.log(jnp.maximum(centers[..., 2:] / priors, epsilon))
    return jnp.concatenate([place, scale], -1)


def decode_yolo(
    raw: Float[Array, "... 4"],
    cells: Num[Array, "... 2"],
    priors: Float[Array, "... 2"],
    stride: Float[Array, "... 1"] | float | int,
) -> Float[Array, "... 4"]:
    """The boxes of YOLO v2's and v3's raw predictions, before the sigmoid; see `encode_yolo`."""
    middle = (cells + jax.nn.sigmoid(raw[..., :2])) * stride
    return from_centers(jnp.concatenate([middle, jnp.exp(raw[..., 2:]) * priors], -1))


def encode_yolo_v1(
    boxes: Float[Array, "... 4"],
    cells: Num[Array, "... 2"],
    grid: tuple[int, int],
    image_size: tuple[int, int],
) -> Float[Array, "... 4"]:
    """Where in its cell a box's centre is, and the square roots of its share of the image's sides.

    Redmon et al., You Only Look Once, 2015, https://arxiv.org/abs/1506.02640, section 2.

    Args:
      boxes: what should be predicted.
      cells: (column, row) of the cell that predicts each.
      grid: the number of (rows, columns) of cells.
      image_size: (height, width) in pixels.

    Returns:
      (x, y) in the cell and (√ width, √ height), 0 to 1.
    """
    sides = jnp.asarray(image_size[::-1], jnp.float32)
    centers = to_centers(boxes)
    place = centers[..., :2] / sides * jnp.asarray(grid[::-1]) - cells
    share = centers[..., 2:] / sides
    # The gradient of a root at 0 is infinite.
    root = jnp.where(share > 0, jnp.sqrt(_positive(share)), 0.0)
    return jnp.concatenate([place, root], -1)


def decode_yolo_v1(
    codes: Float[Array, "... 4"],
    cells: Num[Array, "... 2"],
    grid: tuple[int, int],
    image_size: tuple[int, int],
) -> Float[Array, "... 4"]:
    """The boxes that `encode_yolo_v1` gives these numbers for."""
    sides = jnp.asarray(image_size[::-1], jnp.float32)
    middle = (cells + codes[..., :2]) / jnp.asarray(grid[::-1]) * sides
    return from_centers(jnp.concatenate([middle, codes[..., 2:] ** 2 * sides], -1))
