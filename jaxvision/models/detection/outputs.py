"""What all detectors give: a fixed number of boxes with scores and classes."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxvision.ops import boxes as box_ops
from jaxvision.ops.suppression import batched_nms, nms

# Of a level: scores [b, n, k], coded boxes [b, n, 4], and what decodes some of them.
Level = tuple[Array, Array, Callable[[Array, Array], Array]]


def select_from_levels(
    detector: Any, levels: Iterable[Level], size: Sequence[int]
) -> dict[str, Array]:
    """The objects that are left of the best pairs of place and class of all levels; see `select`.

    Args:
      detector: has `candidates`, `score_threshold`, `nms_threshold` and `max_detections`.
      levels: see `best_of_level`.
      size: (height, width) of the image.
    """
    least, most = detector.score_threshold, detector.candidates
    found = [best_of_level(*level, score_threshold=least, candidates=most) for level in levels]
    box, score, label = (jnp.concatenate(parts, 1) for parts in zip(*found))
    return select(
        box,
        score,
        label,
        size,
        score_threshold=least,
        nms_threshold=detector.nms_threshold,
        max_detections=detector.max_detections,
    )


def select_of_each_class(
    detector: Any,
    scores: Float[Array, "b n k"],
    coded: Float[Array, "b n 4"],
    decode: Callable[[Array, Array], Array],
    size: Sequence[int],
) -> dict[str, Array]:
    """The objects that are left of the best places of each class; see `select`.

    Args:
      detector: see `select_from_levels`; its `candidates` are those of a class.
      scores, coded, decode: see `best_of_level`.
      size: (height, width) of the image.
    """
    batch, places, _ = scores.shape
    best, place = jax.lax.top_k(scores.swapaxes(1, 2), min(detector.candidates, places))
    flat = place.reshape(batch, -1)
    found = decode(jnp.take_along_axis(coded, flat[..., None], 1), flat)
    boxes = box_ops.clip(found, *size).reshape(*place.shape, 4)

    # Class by class and not at once: on accelerators that compares all boxes with each other.
    def one(boxes: Array, scores: Array) -> tuple[Array, Array]:
        valid = scores > detector.score_threshold
        indices, kept = nms(boxes, scores, detector.nms_threshold, detector.max_detections, valid)
        return boxes[indices], jnp.where(kept, scores[indices], -1.0)

    boxes, best = jax.vmap(jax.vmap(one))(boxes, best)
    scores, index = jax.lax.top_k(best.reshape(batch, -1), detector.max_detections)
    boxes = jnp.take_along_axis(boxes.reshape(batch, -1, 4), index[..., None], 1)
    return _padded(boxes, scores, index // detector.max_detections, scores > 0)


def best_of_level(
    scores: Float[Array, "b n k"],
    coded: Float[Array, "b n 4"],
    decode: Callable[[Array, Array], Array],
    *,
    score_threshold: float,
    candidates: int,
) -> tuple[Float[Array, "b m 4"], Float[Array, "b m"], Int[Array, "b m"]]:
    """(boxes, scores, classes) of the pairs of place and class with the highest scores.

    Scores that are not above the threshold are given as -1.

    Args:
      scores: of each place and class.
      coded: of each place, as the network predicts its box.
      decode: (coded boxes [b, m, 4], places [b, m]) to boxes [b, m, 4].
      score_threshold: pairs need a higher score.
      candidates: m, if there are as many.
    """
    rows, places, classes = scores.shape
    number = min(candidates, places * classes)
    place = jnp.broadcast_to(jnp.arange(places), (rows, places))
    if places > number:
        # The best pairs are of the places whose best pairs are best. In their order, so that of
        # equal scores those come first that would without this.
        place = jnp.sort(jax.lax.top_k(scores.max(2), number)[1], axis=1)
        scores = jnp.take_along_axis(scores, place[..., None], 1)
    flat = jnp.where(scores > score_threshold, scores, -1.0).reshape(rows, -1)
    best, index = jax.lax.top_k(flat, number)
    place = jnp.take_along_axis(place, index // classes, 1)
    boxes = decode(jnp.take_along_axis(coded, place[..., None], 1), place)
    return boxes, best, index % classes


def select(
    boxes: Float[Array, "b n 4"],
    scores: Float[Array, "b n"],
    labels: Int[Array, "b n"],
    size: Sequence[int],
    *,
    score_threshold: float,
    nms_threshold: float,
    max_detections: int,
    clip: bool = True,
) -> dict[str, Array]:
    """The objects that suppression leaves, from the highest score on.

    Args:
      boxes: in pixels.
      scores: of each.
      labels: classes; boxes of different ones do not suppress each other.
      size: (height, width) of the image.
      score_threshold: boxes need a higher score.
      nms_threshold: overlap above which the box of lower score goes.
      max_detections: m, of an image.
      clip: whether boxes are cut off at the image's edges first.

    Returns:
      `boxes` [b, m, 4], `scores` and `labels` [b, m], all 0 where not `valid` [b, m].
    """
    if clip:
        boxes = box_ops.clip(boxes, *size)

    def one(boxes: Array, scores: Array, labels: Array) -> dict[str, Array]:
        indices, kept = batched_nms(
            boxes, scores, labels, nms_threshold, max_detections, scores > score_threshold
        )
        return _padded(boxes[indices], scores[indices], labels[indices], kept)

    return jax.vmap(one)(boxes, scores, labels)


def _padded(boxes: Array, scores: Array, labels: Array, kept: Array) -> dict[str, Array]:
    return {
        "boxes": jnp.where(kept[..., None], boxes, 0),
        "scores": jnp.where(kept, scores, 0),
        "labels": jnp.where(kept, labels, 0).astype(jnp.int32),
        "valid": kept,
    }
