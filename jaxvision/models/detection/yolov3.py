"""YOLO v3: anchors on three maps, each with its own objectness, and classes that do not exclude.

Redmon and Farhadi, YOLOv3: An Incremental Improvement, 2018, https://arxiv.org/abs/1804.02767.
Reference: mmdetection's `YOLOV3` with `Darknet(depth=53)`, `YOLOV3Neck` and `YOLOV3Head`. As there
the losses are sums over all images of a batch, so that learning rates of one recipe hold for one
size of the batch (theirs is 0.001 for eight images), and boxes may reach beyond the image. It
freezes the statistics of its trunk; here that is the option `frozen_statistics`.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from jaxvision.errors import UserError
from jaxvision.layers.conv_norm import ConvNormAct
from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.pyramid import by_stride, required
from jaxvision.losses import Ratio, binary_cross_entropy
from jaxvision.models.backbones.darknet import leaky_relu
from jaxvision.models.detection.dense import flat
from jaxvision.models.detection.outputs import select
from jaxvision.models.detection.targets import Boxes, Targets, learnable
from jaxvision.models.variant import Variant
from jaxvision.ops import anchors as anchor_ops
from jaxvision.ops import boxes
from jaxvision.ops.forms import accumulable
from jaxvision.ops.matching import BACKGROUND, IGNORED
from jaxvision.ops.resize import resize


class Places(NamedTuple):
    """Where the n predictions of an image are, from the coarsest map on.

    Attributes:
      anchors: boxes, in pixels.
      cells: (column, row) of each on its map.
      last: the last cell of its map.
      strides: of its map.
    """

    anchors: Float[Array, "n 4"]
    cells: Float[Array, "n 2"]
    last: Float[Array, "n 2"]
    strides: Float[Array, "n 1"]

    @property
    def priors(self) -> Float[Array, "n 2"]:
        """(width, height) of the anchors."""
        return self.anchors[:, 2:] - self.anchors[:, :2]


class DetectionBlock(nn.Module):
    """Five convolutions, 1x1 and 3x3 by turns, the latter twice as wide.

    Attributes:
      width: channels of the output.
    """

    width: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w d"]:
        for number in range(1, 6):
            width, size = (self.width, 1) if number % 2 else (2 * self.width, 3)
            conv = ConvNormAct(width, size, act=leaky_relu, dtype=self.dtype, name=f"conv{number}")
            x = conv(x, train)
        return x


class YOLOv3(nn.Module):
    """A detector; see docs/detection.md for what it is given and gives.

    Attributes:
      encoder: a backbone with maps of the strides.
      strides: of its maps that are looked at, finest first.
      widths: channels of the neck at each; heads have twice as many.
      anchors: (width, height) in pixels of each map's anchors; `jaxvision data anchors` finds those
        of a data set.
      frozen_statistics: whether the encoder keeps its running statistics in training.
      objectness_threshold: below it there is no object.
      score_threshold: what a class needs more than, before it is multiplied by the objectness.
      nms_threshold, max_detections: see `select`.
      candidates: pairs of anchor and class that are looked at, by the scores of the classes.
    """

    ENDS = ("classes",)
    ENCODER: ClassVar[str] = "backbone"
    preserve_adopted_names: ClassVar[bool] = True

    num_classes: int = 80
    encoder: Any = None
    strides: Sequence[int] = (8, 16, 32)
    widths: Sequence[int] = (128, 256, 512)
    anchors: Sequence[Sequence[tuple[float, float]]] = (
        ((10, 13), (16, 30), (33, 23)),
        ((30, 61), (62, 45), (59, 119)),
        ((116, 90), (156, 198), (373, 326)),
    )
    frozen_statistics: bool = False
    objectness_threshold: float = 0.005
    score_threshold: float = 0.05
    nms_threshold: float = 0.45
    max_detections: int = 100
    candidates: int = 1000
    dtype: Any = None

    def heads(self, image: Float[Array, "b h w c"], train: bool = False) -> dict[str, Array]:
        """What the heads give, before their activations: `box` [b, n, 4] (offsets in the cell, then
        logarithms of the sides over the anchor's), `objectness` [b, n, 1], `classes` [b, n, k]."""
        raw, _ = self._predictions(image, train)
        return {"box": raw[..., :4], "objectness": raw[..., 4:5], "classes": raw[..., 5:]}

    @nn.compact
    def _predictions(self, image: Array, train: bool) -> tuple[Array, Places]:
        """Raw predictions [b, n, 5 + k], and where they are."""
        if not len(self.strides) == len(self.widths) == len(self.anchors):
            raise UserError(
                f"YOLO v3 has {len(self.strides)} strides; widths ({len(self.widths)}) and anchors "
                f"({len(self.anchors)} lists of sizes) need one entry for each."
            )
        found = self.encoder(image, train and not self.frozen_statistics)
        maps = required(by_stride(self.encoder, image, found), self.strides, "YOLO v3")
        common: dict[str, Any] = {"act": leaky_relu, "dtype": self.dtype}
        outputs: list[Array] = []
        places: list[Places] = []
        x = None
        levels = list(zip(maps, self.strides, self.widths, self.anchors))
        for index, (level, stride, width, sizes) in enumerate(reversed(levels)):
            if x is not None:
                x = ConvNormAct(width, **common, name=f"neck.conv{index}")(x, train)
                level = jnp.concatenate([resize(x, level.shape[1:3], "nearest"), level], -1)
            x = DetectionBlock(width, self.dtype, name=f"neck.detect{index + 1}")(level, train)
            bridge = ConvNormAct(2 * width, 3, **common, name=f"bbox_head.convs_bridge_{index}")
            predict = Conv2d(
                len(sizes) * (5 + self.num_classes),
                1,
                dtype=self.dtype,
                kernel_init=nn.initializers.normal(0.01),
                bias_init=_priors(len(sizes), stride),
                name=f"bbox_head.convs_pred_{index}",
            )
            outputs.append(flat(accumulable(predict(bridge(x, train))), 5 + self.num_classes))
            places.append(_places(level.shape[1:3], stride, sizes))
        return jnp.concatenate(outputs, 1), Places(*map(jnp.concatenate, zip(*places)))

    def __call__(
        self,
        image: Float[Array, "b h w c"],
        train: bool = False,
        targets: Targets | None = None,
    ) -> dict[str, Array] | dict[str, Ratio]:
        raw, places = self._predictions(image, train)
        if train:
            return losses(raw, places, learnable(targets))
        objectness, scores = jax.nn.sigmoid(raw[..., 4]), jax.nn.sigmoid(raw[..., 5:])
        # As in the reference, candidates have the best classes, not the best scores.
        possible = scores > self.score_threshold
        possible &= (objectness >= self.objectness_threshold)[..., None]
        ranked = jnp.where(possible, scores, -1.0).reshape(raw.shape[0], -1)
        best, index = jax.lax.top_k(ranked, min(self.candidates, ranked.shape[1]))
        place, label = index // self.num_classes, index % self.num_classes
        coded = jnp.take_along_axis(raw[..., :4], place[..., None], 1)
        at = places.cells[place], places.priors[place], places.strides[place]
        found = boxes.decode_yolo(coded, *at)
        score = best * jnp.take_along_axis(objectness, place, 1)
        return select(
            found,
            jnp.where(boxes.area(found) > 0, score, -1.0),  # sides may be rounded to nothing
            label,
            image.shape[1:3],
            score_threshold=0.0,
            nms_threshold=self.nms_threshold,
            max_detections=self.max_detections,
            clip=False,
        )


def _priors(anchors: int, stride: int) -> nn.initializers.Initializer:
    """Starts where eight anchors of a map for 608 pixels have an object, and a class is rare."""

    def init(key: Any, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        share = 8 / (608 / stride) ** 2
        bias = jnp.zeros((anchors, shape[0] // anchors), dtype)
        bias = bias.at[:, 4].set(-math.log((1 - share) / share)).at[:, 5:].set(-math.log(99))
        return bias.ravel()

    return init


def _places(size: Sequence[int], stride: int, sizes: Sequence[tuple[float, float]]) -> Places:
    height, width = size
    found = anchor_ops.yolo_anchors([sizes], [(height, width)], [stride])
    cells = np.repeat(anchor_ops.points((height, width), 1, 0.0), len(sizes), 0)
    last, strides = np.full_like(cells, cells[-1]), np.full_like(cells[:, :1], stride)
    return Places(*map(jnp.asarray, (found, cells, last, strides)))


def assign(
    places: Places, objects: Float[Array, "g 4"], valid: Bool[Array, " g"]
) -> Int[Array, " n"]:
    """The object that each anchor learns: mmdetection's `GridAssigner` with its usual thresholds.

    Anchors learn in cells that have the centre of an object, of whichever: the object that they
    overlap by more than half, or that has no anchor which it overlaps more. Of several of the
    latter kind it is the last one.

    Args:
      places: of the anchors.
      objects: their boxes.
      valid: which of them count.

    Returns:
      The index of an object; `BACKGROUND` for anchors that overlap none by more than half, and
      `IGNORED` for others.
    """
    overlaps = jnp.where(valid[:, None], boxes.pairwise_iou(objects, places.anchors), 0.0)
    negative = overlaps.max(0) <= 0.5
    middle = boxes.to_centers(objects)[:, None, :2]
    cells = jnp.clip(jnp.floor(middle / places.strides), 0, places.last)
    responsible = ((cells == places.cells).all(-1) & valid[:, None]).any(0)
    overlaps = jnp.where(responsible & valid[:, None], overlaps, -1.0)
    matches = jnp.where(negative, BACKGROUND, IGNORED)
    matches = jnp.where(overlaps.max(0) > 0.5, overlaps.argmax(0), matches)
    best = overlaps.max(1, keepdims=True)
    claims = (overlaps == best) & (best > 0)
    number = jnp.arange(len(objects))[:, None]
    claimed = jnp.where(claims, number, -1).max(0)
    return jnp.where(claimed >= 0, claimed, matches).astype(jnp.int32)


def losses(raw: Float[Array, "b n d"], places: Places, objects: Boxes) -> dict[str, Ratio]:
    """Cross-entropy of classes, objectness and offsets, squared errors of logarithms of sides.

    Args:
      raw: see `YOLOv3._predictions`.
      places: of the predictions.
      objects: to learn.
    """
    found = jax.vmap(lambda box, valid: assign(places, box, valid))(objects.boxes, objects.valid)
    learns, truth, label = objects.taken(found)
    wanted = boxes.encode_yolo(truth, places.cells, places.priors, places.strides)
    classes = jax.nn.one_hot(label, raw.shape[-1] - 5)
    counted = (found != IGNORED) & objects.rows[:, None]

    def total(errors: Array, mask: Array) -> Ratio:
        return Ratio(jnp.where(mask, errors, 0.0).sum(), jnp.float32(1))

    positive = learns[..., None]
    return {
        "loss_cls": total(binary_cross_entropy(raw[..., 5:], classes), positive),
        "loss_conf": total(
            binary_cross_entropy(raw[..., 4:5], positive.astype(raw.dtype))[..., 0], counted
        ),
        "loss_xy": total(2 * binary_cross_entropy(raw[..., :2], wanted[..., :2]), positive),
        "loss_wh": total(2 * jnp.square(raw[..., 2:4] - wanted[..., 2:]), positive),
    }


VARIANTS = {
    "yolov3": Variant(
        YOLOv3,
        {"encoder": "darknet53"},
        "mmdet YOLOV3(Darknet53)",
        (416, 416, 3),
        "Redmon and Farhadi 2018, https://arxiv.org/abs/1804.02767",
        first="backbone.conv1.conv",
        classifier=tuple(f"bbox_head.convs_pred.{index}" for index in range(3)),
    )
}
