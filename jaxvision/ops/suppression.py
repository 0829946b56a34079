"""Non-maximum suppression with a fixed number of outputs: greedy, per class, and soft.

Nothing is deleted: an output says which box it is, and whether it is one. All of it batches by
`jax.vmap`. `nms` in benchmarks/ops.py measures the hard one.

CPUs take one surviving box after another: a row of overlaps each. A step costs microseconds, and
stops once enough boxes are kept. On accelerators a step costs as much as hundreds of rows, so there
all overlaps are computed at once, and the rule is applied to all boxes until nothing changes.
"""

from functools import partial
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxvision.ops.boxes import iou, pairwise_iou
from jaxvision.ops.forms import chosen


def _below(threshold: float) -> np.float32:
    """The largest float32 that is not above: comparing with it is comparing with the number itself.

    Rounded to the nearest, 0.3 would lie above 0.3, and an overlap of exactly 3/10 would not be
    suppressed, as it is in torchvision, which compares in double precision.
    """
    rounded = np.float32(threshold)
    return rounded if float(rounded) <= threshold else np.nextafter(rounded, np.float32(-np.inf))


def _one_by_one(
    max_outputs: int, threshold: np.float32, boxes: Array, classes: Array | None, alive: Array
) -> tuple[Array, Array]:
    places = jnp.arange(len(alive), dtype=jnp.int32)
    nobody = jnp.int32(len(alive))
    columns = lax.optimization_barrier(boxes.T)  # each coordinate in one piece of memory

    def step(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        alive, found, count, best = state
        suppressed = iou(boxes[best], columns.T) > threshold
        if classes is not None:
            suppressed &= classes == classes[best]
        alive &= ~suppressed
        following = jnp.min(jnp.where(alive & (places > best), places, nobody))
        return alive, found.at[count].set(best), count + 1, following

    def goes_on(state: tuple[Array, Array, Array, Array]) -> Array:
        return (state[3] < nobody) & (state[2] < max_outputs)

    first = jnp.min(jnp.where(alive, places, nobody))
    start = (alive, jnp.zeros(max_outputs, jnp.int32), jnp.int32(0), first)
    _, found, count, _ = lax.while_loop(goes_on, step, start)
    return found, jnp.arange(max_outputs) < count


def _all_at_once(
    max_outputs: int, threshold: np.float32, boxes: Array, classes: Array | None, alive: Array
) -> tuple[Array, Array]:
    places = jnp.arange(len(alive))
    above = (pairwise_iou(boxes, boxes) > threshold) & (places[:, None] > places)
    if classes is not None:
        above &= classes[:, None] == classes

    def step(state: tuple[Array, Array]) -> tuple[Array, Array]:
        kept, _ = state
        # After step k the k best boxes are right, so this ends; mostly after a handful of steps.
        now = alive & ~jnp.any(above & kept, 1)
        return now, jnp.any(now != kept)

    kept, _ = lax.while_loop(lambda state: state[1], step, (alive, jnp.any(alive)))
    (found,) = jnp.nonzero(kept, size=max_outputs, fill_value=0)
    return found.astype(jnp.int32), jnp.arange(max_outputs) < kept.sum()


def _nms(
    boxes: Array,
    scores: Array,
    classes: Array | None,
    threshold: float,
    max_outputs: int,
    valid: Array | None,
) -> tuple[Array, Array]:
    if valid is None:
        valid = jnp.ones(len(scores), bool)
    order = jnp.argsort(jnp.where(valid, -scores, jnp.inf))
    sides = lax.stop_gradient(boxes)[order], None if classes is None else classes[order]
    static = max_outputs, _below(threshold)
    found, kept = chosen(
        *sides,
        valid[order],
        cpu=partial(_one_by_one, *static),
        default=partial(_all_at_once, *static),
    )
    return jnp.where(kept, order[found], 0).astype(jnp.int32), kept


def nms(
    boxes: Float[Array, "n 4"],
    scores: Float[Array, " n"],
    threshold: float,
    max_outputs: int,
    valid: Bool[Array, " n"] | None = None,
) -> tuple[Int[Array, " k"], Bool[Array, " k"]]:
    """Takes the best box again and again, and drops those that overlap it by more than a threshold.

    Equal to `torchvision.ops.nms`, whose first `max_outputs` these are; of equal scores the first
    comes first. Boxes without area overlap nothing.

    Args:
      boxes: (x0, y0, x1, y1).
      scores: higher ones are better.
      threshold: an IoU; a number and not an array.
      max_outputs: how many boxes come out.
      valid: which boxes take part; all by default.

    Returns:
      (indices, kept): the boxes that remain by falling score, and which of these rows are boxes.
      The index of a row that is none is 0.
    """
    return _nms(boxes, scores, None, threshold, max_outputs, valid)


def batched_nms(
    boxes: Float[Array, "n 4"],
    scores: Float[Array, " n"],
    classes: Int[Array, " n"],
    threshold: float,
    max_outputs: int,
    valid: Bool[Array, " n"] | None = None,
) -> tuple[Int[Array, " k"], Bool[Array, " k"]]:
    """`nms` among the boxes of each class.

    Args:
      boxes, scores, threshold, max_outputs, valid: see `nms`.
      classes: boxes of different ones do not suppress each other. (Levels of a pyramid serve too.)
    """
    return _nms(boxes, scores, classes, threshold, max_outputs, valid)


def soft_nms(
    boxes: Float[Array, "n 4"],
    scores: Float[Array, " n"],
    max_outputs: int,
    *,
    method: Literal["gaussian", "linear"] = "gaussian",
    sigma: float = 0.5,
    threshold: float = 0.3,
    min_score: float = 0.001,
    classes: Int[Array, " n"] | None = None,
    valid: Bool[Array, " n"] | None = None,
) -> tuple[Int[Array, " k"], Float[Array, " k"]]:
    """Takes the best box again and again, and lowers the scores of those that overlap it.

    Bodla et al., Soft-NMS, 2017, https://arxiv.org/abs/1704.04503, equations 2 and 3.

    Args:
      boxes: (x0, y0, x1, y1).
      scores: 0 to 1.
      max_outputs: how many boxes come out.
      method: `gaussian` multiplies a score by exp(-IoU² / sigma); `linear` by 1 - IoU, where that
        IoU is above the threshold.
      sigma: of the Gaussian.
      threshold: of the linear method; a number and not an array.
      min_score: boxes whose score is not above it, at the start or later, are dropped.
      classes: boxes of different ones do not lower each other's scores.
      valid: which boxes take part; all by default.

    Returns:
      (indices, scores): the boxes in the order taken, with the scores that they had then, which
      fall. The score is 0, like the index, where no box remained.
    """
    alive = scores > min_score
    if valid is not None:
        alive &= valid

    def step(left: Array, _: None) -> tuple[Array, tuple[Array, Array]]:
        best = jnp.argmax(left)
        overlap = iou(boxes[best], boxes)
        if method == "gaussian":
            decay = jnp.exp(-(overlap**2) / sigma)
        else:
            decay = jnp.where(overlap > _below(threshold), 1 - overlap, 1.0)
        if classes is not None:
            decay = jnp.where(classes == classes[best], decay, 1.0)
        lowered = left * decay
        stays = (lowered > min_score) & (jnp.arange(len(left)) != best)
        return jnp.where(stays, lowered, 0.0), (best.astype(jnp.int32), left[best])

    _, (found, values) = lax.scan(step, jnp.where(alive, scores, 0.0), length=max_outputs)
    return jnp.where(values > 0, found, 0), values
