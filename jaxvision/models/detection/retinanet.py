"""RetinaNet: anchors at every place of a pyramid, and a loss that leaves easy ones alone.

Lin et al., Focal Loss for Dense Object Detection, 2017, https://arxiv.org/abs/1708.02002.
Reference: torchvision's `retinanet_resnet50_fpn` and `retinanet_resnet50_fpn_v2` (Li et al. 2021,
https://arxiv.org/abs/2111.11429: group norm in the heads, GIoU for the boxes).
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.losses import Ratio, giou_loss, sigmoid_focal
from jaxvision.models.detection.dense import Tower, flat, pyramid
from jaxvision.models.detection.outputs import Level, select_from_levels
from jaxvision.models.detection.targets import Boxes, Targets, learnable
from jaxvision.models.variant import Variant
from jaxvision.ops import anchors as anchor_ops
from jaxvision.ops import boxes
from jaxvision.ops.matching import BACKGROUND, IGNORED, match_boxes


class _Head(nn.Module):
    """Class scores and coded boxes of every anchor.

    Attributes: see `RetinaNet`.
    """

    num_classes: int
    anchors: int
    width: int
    depth: int
    groups: int
    dtype: Any = None

    @nn.compact
    def __call__(self, levels: Sequence[Float[Array, "b _ _ d"]]) -> list[tuple[Array, Array]]:
        """(logits [b, n, k], coded boxes [b, n, 4]) of each level."""
        same: dict[str, Any] = {"depth": self.depth, "width": self.width, "groups": self.groups}
        same |= {"nested": True, "dtype": self.dtype}
        scores, sides = self.anchors * self.num_classes, self.anchors * 4
        classify = Tower((("cls_logits", scores),), prior=0.01, name="classification_head", **same)
        locate = Tower((("bbox_reg", sides),), name="regression_head", **same)
        return [
            (flat(logits, self.num_classes), flat(coded, 4))
            for (logits,), (coded,) in zip(classify(levels), locate(levels))
        ]


class RetinaNet(nn.Module):
    """A detector; see docs/detection.md for what it is given and gives.

    Attributes:
      encoder: a backbone with maps of strides 8 and 16, and perhaps 32.
      width: channels of the pyramid and the heads.
      depth: convolutions of each head before its last.
      groups: of group norms in the heads; 0 is none.
      extra: see `FeaturePyramid`.
      sizes: the smallest side of each level's anchors; two more are in the octave above.
      ratios: heights of the anchors divided by their widths.
      box_loss: "l1", of the coded boxes, or "giou".
      score_threshold, nms_threshold, max_detections: see `select`.
      candidates: boxes of each level before suppression.
    """

    ENDS = ("classes",)
    ENCODER: ClassVar[str] = "backbone.body"
    preserve_adopted_names: ClassVar[bool] = True

    num_classes: int = 91
    encoder: Any = None
    width: int = 256
    depth: int = 4
    groups: int = 0
    extra: str = "last"
    sizes: Sequence[int] = (32, 64, 128, 256, 512)
    ratios: Sequence[float] = (0.5, 1.0, 2.0)
    box_loss: str = "l1"
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    max_detections: int = 300
    candidates: int = 1000
    dtype: Any = None

    def heads(self, image: Float[Array, "b h w c"], train: bool = False) -> dict[str, Array]:
        """What the heads give for all anchors: `cls_logits` and `bbox_regression`."""
        logits, coded, _ = zip(*self._levels(image, train))
        return {
            "cls_logits": jnp.concatenate(logits, 1),
            "bbox_regression": jnp.concatenate(coded, 1),
        }

    @nn.compact
    def _levels(self, image: Float[Array, "b h w c"], train: bool) -> list[tuple[Array, ...]]:
        """(logits [b, n, k], coded boxes [b, n, 4], anchors [n, 4]) of each level."""
        levels = pyramid(self, image, train)
        each = 3 * len(self.ratios)
        head = _Head(
            self.num_classes, each, self.width, self.depth, self.groups, self.dtype, name="head"
        )
        found: list[tuple[Array, ...]] = []
        for level, size, outputs in zip(levels, self.sizes, head(levels), strict=True):
            octave = (size, int(size * 2 ** (1 / 3)), int(size * 2 ** (2 / 3)))
            cell = anchor_ops.cell_anchors(octave, self.ratios)
            height, width = level.shape[1:3]
            apart = (image.shape[1] // height, image.shape[2] // width)
            anchors = anchor_ops.grid_anchors(cell, (height, width), apart)
            found.append((*outputs, jnp.asarray(anchors)))
        return found

    def __call__(
        self,
        image: Float[Array, "b h w c"],
        train: bool = False,
        targets: Targets | None = None,
    ) -> dict[str, Array] | dict[str, Ratio]:
        levels = self._levels(image, train)
        if train:
            return losses(levels, learnable(targets), self.box_loss)
        return select_from_levels(self, map(_scored, levels), image.shape[1:3])


def _scored(level: tuple[Array, ...]) -> Level:
    logits, coded, anchors = level

    def decode(coded: Array, place: Array) -> Array:
        return boxes.decode_deltas(coded, anchors[place])

    return jax.nn.sigmoid(logits), coded, decode


def losses(levels: Sequence[tuple[Array, ...]], objects: Boxes, box_loss: str) -> dict[str, Ratio]:
    """Focal loss of the classes, and the boxes' loss, each divided by an image's matched anchors.

    Args:
      levels: see `RetinaNet._levels`.
      objects: to learn.
      box_loss: see `RetinaNet`.
    """
    logits, coded = (jnp.concatenate(parts, 1) for parts in list(zip(*levels))[:2])
    anchors = jnp.concatenate([level[2] for level in levels])
    found = jax.vmap(
        lambda box, valid: match_boxes(
            boxes.pairwise_iou(box, anchors), valid, 0.5, 0.4, allow_low_quality=True
        )
    )(objects.boxes, objects.valid)
    # Where there is no box at all, none is matched.
    found = jnp.where(objects.valid.any(1, keepdims=True), found, BACKGROUND)
    learns, truth, label = objects.taken(found)
    truth = jnp.where(learns[..., None], truth, anchors)
    classes = jax.nn.one_hot(jnp.where(learns, label, -1), logits.shape[-1])
    counted = (found != IGNORED) & objects.rows[:, None]
    focal = jnp.where(counted[..., None], sigmoid_focal(logits, classes), 0.0).sum((1, 2))
    if box_loss == "giou":
        error = giou_loss(boxes.decode_deltas(coded, anchors), truth)
    else:
        error = jnp.abs(coded - boxes.encode_deltas(truth, anchors)).sum(-1)
    error = jnp.where(learns, error, 0.0).sum(1)
    matched = jnp.maximum(learns.sum(1), 1)
    rows = objects.rows.sum().astype(jnp.float32)
    return {
        "classification": Ratio((focal / matched).sum(), rows),
        "bbox_regression": Ratio((error / matched).sum(), rows),
    }


def _variant(reference: str, **options: Any) -> Variant:
    return Variant(
        RetinaNet,
        {"encoder": "resnet50", **options},
        reference,
        (800, 1333, 3),
        "Lin et al. 2017, https://arxiv.org/abs/1708.02002",
        classifier=("head.classification_head.cls_logits",),
        first="backbone.body.conv1",
    )


VARIANTS = {
    "retinanet_resnet50_fpn": _variant("torchvision retinanet_resnet50_fpn"),
    "retinanet_resnet50_fpn_v2": _variant(
        "torchvision retinanet_resnet50_fpn_v2",
        groups=32,
        extra="encoder",
        box_loss="giou",
    ),
}
