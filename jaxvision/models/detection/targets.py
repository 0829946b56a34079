"""The objects that a detector learns, and which of its anchors or places learn which."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxvision.errors import UserError
from jaxvision.ops.boxes import pairwise_iou
from jaxvision.ops.matching import claim_best_anchors, match_boxes

Targets = Mapping[str, Array]


class Boxes(NamedTuple):
    """The boxes of a batch to learn from: padding and crowds are not valid."""

    boxes: Float[Array, "b g 4"]
    labels: Int[Array, "b g"]
    valid: Bool[Array, "b g"]
    rows: Bool[Array, " b"]  # images that are not padding

    def taken(
        self, found: Int[Array, "b n"]
    ) -> tuple[Bool[Array, "b n"], Float[Array, "b n 4"], Int[Array, "b n"]]:
        """(whether it learns one, box, class) of each anchor, whose box is the one of this index.

        Negative indices are of anchors that learn none; they are given the first box.
        """
        index = jnp.maximum(found, 0)
        boxes = jnp.take_along_axis(self.boxes, index[..., None], 1)
        return found >= 0, boxes, jnp.take_along_axis(self.labels, index, 1)


def learnable(targets: Targets | None) -> Boxes:
    """The boxes of a detector's targets; crowds are left out.

    Raises:
      UserError: there are none.
    """
    if targets is None:
        raise UserError(
            "A detector in training needs targets: boxes, box_label and box_valid of each image."
        )
    boxes, valid = targets["boxes"], targets["box_valid"]
    crowd = targets.get("box_crowd", jnp.zeros_like(valid))
    rows = targets.get("valid", jnp.ones(len(valid), bool))
    return Boxes(boxes, targets["box_label"], valid & ~crowd & rows[:, None], rows)


def learnable_keypoints(detector: Any, targets: Targets) -> Float[Array, "b n k 3"]:
    """The key points of a detector's targets, as many of an object as its `keypoints`.

    Raises:
      UserError: there are none, or another number.
    """
    points = targets.get("keypoints")
    if points is None or points.shape[2] != detector.keypoints:
        have = "none" if points is None else str(points.shape[2])
        raise UserError(
            f"{type(detector).__name__} in training needs the targets keypoints, "
            f"{detector.keypoints} of each object; the data have {have}."
        )
    return points


def claimed(
    truth: Boxes,
    anchors: Float[Array, "n 4"],
    threshold: float,
    winner: Literal["first", "last"] = "last",
) -> Int[Array, "b n"]:
    """The box of each anchor: the one that it overlaps most, if by enough, or whose best it is.

    Args:
      truth: the objects.
      anchors: in pixels.
      threshold: the IoU that is enough.
      winner: see `claim_best_anchors`.
    """

    def match(boxes: Array, valid: Array) -> Array:
        overlaps = pairwise_iou(boxes, anchors)
        found = match_boxes(overlaps, valid, threshold, threshold)
        return claim_best_anchors(found, overlaps, valid, winner)

    return jax.vmap(match)(truth.boxes, truth.valid)
