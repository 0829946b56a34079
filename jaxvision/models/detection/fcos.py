"""FCOS: every place of a pyramid says how far the sides of the box around it are.

Tian et al., FCOS: Fully Convolutional One-Stage Object Detection, 2019,
https://arxiv.org/abs/1904.01355, with what its authors added in https://arxiv.org/abs/2006.09214:
only places near an object's centre learn it, boxes are measured in strides, and the loss is GIoU's.
Reference: torchvision's `fcos_resnet50_fpn`. It normalises all losses by the places that learn a
box, and so do we.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jaxvision.losses import Ratio, giou_loss, sigmoid_focal
from jaxvision.models.detection.dense import Tower, flat, pyramid
from jaxvision.models.detection.outputs import Level, select_from_levels
from jaxvision.models.detection.targets import Boxes, Targets, learnable
from jaxvision.models.variant import Variant
from jaxvision.ops import anchors, boxes


class _Head(nn.Module):
    """Class scores; distances to the sides and centreness.

    Attributes: see `FCOS`.
    """

    num_classes: int
    width: int
    depth: int
    groups: int
    dtype: Any = None

    @nn.compact
    def __call__(self, levels: Sequence[Float[Array, "b _ _ d"]]) -> list[tuple[Array, ...]]:
        """(logits [b, n, k], distances [b, n, 4], logit of centreness [b, n]) of each level."""
        same: dict[str, Any] = {"depth": self.depth, "width": self.width, "groups": self.groups}
        same["dtype"] = self.dtype
        classify = Tower(
            (("cls_logits", self.num_classes),), prior=0.01, name="classification_head", **same
        )
        locate = Tower((("bbox_reg", 4), ("bbox_ctrness", 1)), name="regression_head", **same)
        return [
            (flat(logits, self.num_classes), flat(nn.relu(sides), 4), flat(centre, 1)[..., 0])
            for (logits,), (sides, centre) in zip(classify(levels), locate(levels))
        ]


class FCOS(nn.Module):
    """A detector; see docs/detection.md for what it is given and gives.

    Attributes:
      encoder: a backbone with maps of strides 8 and 16, and perhaps 32.
      width: channels of the pyramid and the heads.
      depth: convolutions of each head before its last.
      groups: of their group norms.
      radius: how near an object's centre a place must be to learn it, in strides.
      score_threshold, nms_threshold, max_detections: see `select`.
      candidates: boxes of each level before suppression.
    """

    ENDS = ("classes",)
    ENCODER: ClassVar[str] = "backbone.body"
    preserve_adopted_names: ClassVar[bool] = True
    extra: ClassVar[str] = "last"

    num_classes: int = 91
    encoder: Any = None
    width: int = 256
    depth: int = 4
    groups: int = 32
    radius: float = 1.5
    score_threshold: float = 0.2
    nms_threshold: float = 0.6
    max_detections: int = 100
    candidates: int = 1000
    dtype: Any = None

    def heads(self, image: Float[Array, "b h w c"], train: bool = False) -> dict[str, Array]:
        """What the heads give at all places: `cls_logits`, `bbox_regression`, `bbox_ctrness`."""
        logits, distances, centre, *_ = zip(*self._levels(image, train))
        return {
            "cls_logits": jnp.concatenate(logits, 1),
            "bbox_regression": jnp.concatenate(distances, 1),
            "bbox_ctrness": jnp.concatenate(centre, 1)[..., None],
        }

    @nn.compact
    def _levels(self, image: Float[Array, "b h w c"], train: bool) -> list[tuple[Array, ...]]:
        """(logits [b, n, k], distances [b, n, 4], logit of centreness [b, n]) of each level, and
        its places: points [n, 2] and the stride that distances are measured in."""
        levels = pyramid(self, image, train)
        head = _Head(self.num_classes, self.width, self.depth, self.groups, self.dtype, name="head")
        return [
            (*outputs, *_places(level.shape[1:3], image.shape[1:3], 8 * 2**number))
            for number, (level, outputs) in enumerate(zip(levels, head(levels)))
        ]

    def __call__(
        self,
        image: Float[Array, "b h w c"],
        train: bool = False,
        targets: Targets | None = None,
    ) -> dict[str, Array] | dict[str, Ratio]:
        levels = self._levels(image, train)
        if train:
            return losses(levels, learnable(targets), self.radius)
        return select_from_levels(self, map(_scored, levels), image.shape[1:3])


def _scored(level: tuple[Array, ...]) -> Level:
    logits, distances, centre, points, stride = level
    scores = jnp.sqrt(jax.nn.sigmoid(logits) * jax.nn.sigmoid(centre)[..., None])

    def decode(coded: Array, place: Array) -> Array:
        return boxes.decode_distances(coded, points[place], stride)

    return scores, distances, decode


def _places(
    size: Sequence[int], image: Sequence[int], stride: int
) -> tuple[Float[Array, "n 2"], Float[Array, ""]]:
    """(points in pixels, what distances are measured in) of a level."""
    height, width = size
    apart = (image[0] // height, image[1] // width)
    return jnp.asarray(anchors.points((height, width), apart, 0.0)), jnp.float32(stride)


def match(
    points: Float[Array, "n 2"],
    strides: Float[Array, " n"],
    boxes: Float[Array, "g 4"],
    valid: Float[Array, " g"],
    radius: float,
) -> Int[Array, " n"]:
    """The box that each place learns, or -1.

    A place learns boxes that it is in, whose centre is less than `radius` strides away, and of
    whose sides the farthest is between 4 and 8 strides away (on the finest level nearer ones too,
    on the coarsest all farther ones). Of several it learns the smallest.
    """
    x, y = points[:, :1], points[:, 1:]
    x0, y0, x1, y1 = boxes.T
    away = jnp.maximum(jnp.abs(x - (x0 + x1) / 2), jnp.abs(y - (y0 + y1) / 2))
    sides = jnp.stack([x - x0, y - y0, x1 - x, y1 - y])
    farthest, step = sides.max(0), strides[:, None]
    low = jnp.where(step == strides.min(), 0, 4 * step)
    high = jnp.where(step == strides.max(), jnp.inf, 8 * step)
    matched = (away < radius * step) & (sides.min(0) > 0) & (farthest > low) & (farthest < high)
    # As the reference: areas are compared after they were taken from 1e8, in float32.
    value = jnp.where(matched & valid, 1e8 - (x1 - x0) * (y1 - y0), 0.0)
    return jnp.where(value.max(1) < 1e-5, -1, value.argmax(1))


def losses(levels: Sequence[tuple[Array, ...]], objects: Boxes, radius: float) -> dict[str, Ratio]:
    """Focal loss of the classes, GIoU's of the boxes, cross-entropy of the centreness.

    Args:
      levels: see `FCOS._levels`.
      objects: to learn.
      radius: see `FCOS`.
    """
    logits, distances, centre = (jnp.concatenate(parts, 1) for parts in list(zip(*levels))[:3])
    points = jnp.concatenate([level[3] for level in levels])
    strides = jnp.concatenate([jnp.full(len(level[3]), level[4]) for level in levels])
    found = jax.vmap(lambda box, valid: match(points, strides, box, valid, radius))(
        objects.boxes, objects.valid
    )
    learns, truth, label = objects.taken(found)
    classes = jax.nn.one_hot(jnp.where(learns, label, -1), logits.shape[-1])
    focal = jnp.where(objects.rows[:, None, None], sigmoid_focal(logits, classes), 0.0)

    sound = jnp.concatenate([points - 1, points + 1], -1)  # for places that learn no box
    truth = jnp.where(learns[..., None], truth, sound)
    guess = boxes.decode_distances(distances, points, strides)
    overlap = giou_loss(guess, truth)
    left, top, right, bottom = jnp.moveaxis(boxes.encode_distances(truth, points), -1, 0)
    wanted = jnp.sqrt(
        jnp.minimum(left, right) / jnp.maximum(left, right)
        * jnp.minimum(top, bottom) / jnp.maximum(top, bottom)
    )  # fmt: skip
    entropy = jnp.maximum(centre, 0) - centre * wanted + jnp.log1p(jnp.exp(-jnp.abs(centre)))
    count = learns.sum().astype(jnp.float32)
    return {
        "classification": Ratio(focal.sum(), count),
        "bbox_regression": Ratio(jnp.where(learns, overlap, 0).sum(), count),
        "bbox_ctrness": Ratio(jnp.where(learns, entropy, 0).sum(), count),
    }


VARIANTS = {
    "fcos_resnet50_fpn": Variant(
        FCOS,
        {"encoder": "resnet50"},
        "torchvision fcos_resnet50_fpn",
        (800, 1333, 3),
        "Tian et al. 2019, https://arxiv.org/abs/1904.01355",
        classifier=("head.classification_head.cls_logits",),
        first="backbone.body.conv1",
    )
}
