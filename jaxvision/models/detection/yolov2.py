"""YOLO v2: anchors in every cell, and a finer map that is folded into the coarse one.

Redmon and Farhadi, YOLO9000: Better, Faster, Stronger, 2016, https://arxiv.org/abs/1612.08242.
Reference: holocron's `yolov2`. As there the losses are those of YOLO v1 (`yolov1.py` says how they
differ from that paper's), and all anchors of an object's cell learn its class; nothing pulls
anchors to their own shapes at first, and none is spared for its overlap.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.errors import UserError
from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.pyramid import by_stride, required
from jaxvision.losses import Ratio
from jaxvision.models.backbones.darknet import sequence
from jaxvision.models.detection.targets import Targets
from jaxvision.models.detection.yolov1 import Cells, centers, convert, detections, export, losses
from jaxvision.models.variant import Variant
from jaxvision.ops.forms import accumulable

# Of yolov2-voc.cfg, where they are in cells of 1/13 of the image.
_ANCHORS = (
    (1.3221, 1.73145),
    (3.19275, 4.00944),
    (5.05587, 8.09892),
    (9.47112, 4.84053),
    (11.2364, 10.0071),
)


class YOLOv2(nn.Module):
    """A detector; see docs/detection.md for what it is given and gives.

    Attributes:
      encoder: a backbone with maps of the strides.
      strides: of the two maps that are looked at; the first is half the second.
      width: channels of the convolutions.
      passthrough: channels that the finer map is narrowed to.
      anchors: widths and heights as shares of the image; `jaxvision data anchors` finds those of a
        data set. Like the reference's they are part of the weights.
      score_threshold, nms_threshold, max_detections: see `select`.
    """

    ENDS = ("classes",)
    ENCODER: ClassVar[str] = "backbone"
    preserve_adopted_names: ClassVar[bool] = True

    num_classes: int = 20
    encoder: Any = None
    strides: tuple[int, int] = (16, 32)
    width: int = 1024
    passthrough: int = 64
    anchors: Sequence[tuple[float, float]] = tuple((w / 13, h / 13) for w, h in _ANCHORS)
    score_threshold: float = 0.05
    nms_threshold: float = 0.7
    max_detections: int = 100
    dtype: Any = None

    def heads(self, image: Float[Array, "b h w c"], train: bool = False) -> dict[str, Array]:
        """What the network gives, before its activations: `box` [b, n, 4] (offsets in the cell,
        logarithms of the sides over the anchor's), `objectness` [b, n, 1], `classes` [b, n, k]."""
        raw, _ = self._predictions(image, train)
        flat = raw.reshape(image.shape[0], -1, raw.shape[-1])
        return {"box": flat[..., :4], "objectness": flat[..., 4:5], "classes": flat[..., 5:]}

    @nn.compact
    def _predictions(self, image: Array, train: bool) -> tuple[Array, Array]:
        """(raw predictions [b, h, w, a, 5 + k], anchors [a, 2])."""
        anchors = self.variable(
            "batch_stats", "anchors", lambda: jnp.asarray(self.anchors, jnp.float32)
        ).value
        found = by_stride(self.encoder, image, self.encoder(image, train))
        fine, coarse = required(found, self.strides, "YOLO v2")
        fine = sequence(self, "passthrough_layer")(fine, train, (self.passthrough, 1, 1))
        coarse = sequence(self, "block5")(coarse, train, *[(self.width, 3, 1)] * 2)
        x = jnp.concatenate([fold(fine, coarse.shape[1:3]), coarse], -1)
        x = sequence(self, "block6")(x, train, (self.width, 3, 1))
        each = 5 + self.num_classes
        x = accumulable(Conv2d(len(anchors) * each, 1, dtype=self.dtype, name="head")(x))
        return x.reshape(*x.shape[:3], len(anchors), each), anchors

    def __call__(
        self,
        image: Float[Array, "b h w c"],
        train: bool = False,
        targets: Targets | None = None,
    ) -> dict[str, Array] | dict[str, Ratio]:
        raw, anchors = self._predictions(image, train)
        cells = Cells(
            centers(raw),
            anchors * jnp.exp(raw[..., 2:4]),
            jnp.sqrt(anchors) * jnp.exp(raw[..., 2:4] / 2),
            jax.nn.sigmoid(raw[..., 4]),
            jax.nn.softmax(raw[..., 5:]),
        )
        if train:
            return losses(cells, targets, image.shape[1:3])
        return detections(self, cells, image.shape[1:3])


def fold(x: Float[Array, "b i j c"], size: Sequence[int]) -> Float[Array, "b h w d"]:
    """A map of half the height and width, of which a place has the channels of four.

    Args:
      x: the map.
      size: (height, width) of what comes out.

    Raises:
      UserError: the map is not twice as large.
    """
    height, width = size
    if x.shape[1:3] != (2 * height, 2 * width):
        raise UserError(
            f"YOLO v2 folds a map into one of {height}x{width}, and this one of {x.shape[1]}x"
            f"{x.shape[2]} is not twice as large: take images whose sides are multiples of 32, or "
            "of the second of the network's strides."
        )
    x = x.reshape(x.shape[0], height, 2, width, 2, -1)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(x.shape[0], height, width, -1)


VARIANTS = {
    "yolov2": Variant(
        YOLOv2,
        {"encoder": "darknet19"},
        "holocron yolov2",
        (416, 416, 3),
        "Redmon and Farhadi 2016, https://arxiv.org/abs/1612.08242",
        classifier=("head",),
        first="backbone.features.stem.0",
        convert=convert,
        export=export,
    )
}
