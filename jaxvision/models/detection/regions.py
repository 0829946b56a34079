"""Detectors that classify regions of feature maps: what Fast and Faster R-CNN have in common."""

import re
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from jaxvision.errors import UserError, unknown
from jaxvision.layers.fpn import FeaturePyramid
from jaxvision.layers.pyramid import by_stride, required
from jaxvision.models.backbones.resnet import ResidualBlock
from jaxvision.models.detection.roi_heads import BoxHead, BoxPredictor
from jaxvision.models.detection.rpn import Learning
from jaxvision.models.detection.targets import Targets, learnable
from jaxvision.ops.pooling import global_average_pool
from jaxvision.ops.roi import multiscale_roi_align, roi_pool
from jaxvision.state_dict import StateDict

Maps = Sequence[Float[Array, "b _ _ c"]]
# Layers whose size depends on the number of classes.
CLASSIFIER = ("roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred")


class Seen(NamedTuple):
    """What heads look at.

    Attributes:
      maps: of an encoder or a pyramid.
      stage: makes of regions of a map what the heads see, if they do not see them as they are.
    """

    maps: Maps
    stage: "LastStage | None" = None


class LastStage(nn.Module):
    """The bottlenecks of a ResNet's last stage, which halve rows and columns of regions.

    Attributes:
      blocks: how many there are.
      frozen: whether their batch norms keep their statistics in training.
      dtype: what is computed in.
    """

    blocks: int = 3
    frozen: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], train: bool, rows: Bool[Array, " n"] | None = None
    ) -> Float[Array, "n i j d"]:
        """`rows`, of what is no padding, are taken as by other heads, and not looked at."""
        for index in range(self.blocks):
            first = index == 0
            x = ResidualBlock(
                512, 2 if first else 1, project=first, dtype=self.dtype, name=str(index)
            )(x, train and not self.frozen)
        return x


class RegionDetector(nn.Module):
    """Maps of an encoder, and heads on what is pooled of each region.

    Attributes:
      num_classes: of objects; the background is one more.
      encoder: gives maps of the strides.
      strides: of the encoder's maps that are used.
      width: channels of the pyramid; 0 is none, on one stride.
      pyramid_norm: whether the pyramid is batch-normalised.
      frozen_statistics: whether the encoder's batch norms keep their statistics in training.
      frozen_encoder: whether they do, and no gradient flows to the encoder.
      pool: "align" or "pool", as the papers.
      pool_size: bins of a region, in rows and columns; several are a spatial pyramid, for "pool".
      head_convs, head_hidden, dropout: see `BoxHead`; a spatial pyramid has no convolutions.
      head_blocks: in their place so many bottlenecks of a ResNet's last stage, and the mean of what
        they give; for an encoder that ends with the stage before. All heads share them.
      box_sampling: which proposals are learnt from: see `Sampling`.
      score_threshold, nms_threshold, max_detections: see `select`.
      dtype: what is computed in; boxes and losses are in float32.
    """

    ENDS: ClassVar[tuple[str, ...]] = ("classes",)
    ENCODER: ClassVar[str] = "backbone.body"
    preserve_adopted_names: ClassVar[bool] = True

    num_classes: int = 90
    encoder: Any = None
    strides: tuple[int, ...] = (4, 8, 16, 32)
    width: int = 256
    pyramid_norm: bool = False
    frozen_statistics: bool = False
    frozen_encoder: bool = False
    pool: str = "align"
    pool_size: int | tuple[int, ...] = 7
    head_convs: tuple[int, ...] = ()
    head_hidden: tuple[int, ...] = (1024, 1024)
    dropout: float = 0.0
    head_blocks: int = 0
    box_sampling: tuple[float, ...] = (512, 0.25, 0.5, 0.5)
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    max_detections: int = 100
    dtype: Any = None

    def _seen(self, image: Array, train: bool) -> Seen:
        """Maps of the strides, and with a pyramid one more."""
        frozen = self.frozen_statistics or self.frozen_encoder
        found = self.encoder(image, train and not frozen)
        if self.frozen_encoder:
            found = jax.lax.stop_gradient(found)
        maps = required(by_stride(self.encoder, image, found), self.strides, type(self).__name__)
        if self.head_blocks:
            stage = LastStage(self.head_blocks, frozen, self.dtype, name="roi_heads.res5")
            return Seen(maps, stage)
        if not self.width:
            return Seen(maps)
        pyramid = FeaturePyramid(
            self.width, "pool", norm=self.pyramid_norm, dtype=self.dtype, name="backbone.fpn"
        )
        return Seen(pyramid(maps, train))

    def _classify(
        self, seen: Seen, boxes: Float[Array, "b n 4"], valid: Bool[Array, "b n"], train: bool
    ) -> tuple[Float[Array, "b n k"], Float[Array, "b n k 4"]]:
        """Scores of the background and the classes of each region, and a box of each."""
        regions = self._pooled(seen.maps, boxes)
        batch, count = regions.shape[:2]
        regions = regions.reshape(-1, *regions.shape[2:])
        if seen.stage is not None:
            x = global_average_pool(seen.stage(regions, train))
        else:
            head = BoxHead(
                self.head_hidden,
                self.head_convs,
                self.dropout,
                dtype=self.dtype,
                name="roi_heads.box_head",
            )
            x = head(regions, train, valid.reshape(-1))
        predict = BoxPredictor(self.num_classes, dtype=self.dtype, name="roi_heads.box_predictor")
        return predict(x.reshape(batch, count, -1))

    def _aligned(
        self, maps: Maps, boxes: Float[Array, "b n 4"], bins: int
    ) -> Float[Array, "b n i j c"]:
        return multiscale_roi_align(
            maps[: len(self.strides)], boxes, bins, self.strides, sampling_ratio=2
        )

    def _pooled(self, maps: Maps, boxes: Float[Array, "b n 4"]) -> Float[Array, "b n i j c"]:
        """Raises:
        UserError: there is no such pooling.
        """
        if self.pool not in ("align", "pool"):
            raise unknown("pool", self.pool, ("align", "pool"))
        sizes = (self.pool_size,) if isinstance(self.pool_size, int) else self.pool_size
        if len(sizes) > 1 and (self.pool == "align" or self.head_convs):
            raise UserError(
                f"pool_size={self.pool_size} is a spatial pyramid, which is for pool='pool' and a "
                "head without convolutions."
            )
        if self.pool == "align":
            return self._aligned(maps, boxes, sizes[0])
        scale = 1 / self.strides[0]
        levels = [roi_pool(maps[0], boxes, bins, scale) for bins in sizes]
        if len(levels) == 1:
            return levels[0]
        # Channel by channel, as in PyTorch's layout; bins of several grids have no rows in common.
        flat = [x.transpose(0, 1, 4, 2, 3).reshape(*x.shape[:2], 1, 1, -1) for x in levels]
        return jnp.concatenate(flat, -1)


def learnt_by(
    detector: nn.Module, targets: Targets | None, wanted: bool
) -> tuple[Learning, Learning] | tuple[None, None]:
    """What the stage on regions and the one before it learn, if anything is learnt.

    Both draw from the random stream `dropout`.

    Raises:
      UserError: there are no targets.
    """
    if not wanted:
        return None, None
    truth = learnable(targets)
    first, second = jax.random.split(detector.make_rng("dropout"))
    return Learning(truth, first), Learning(truth, second)


def convert_layers(state: StateDict) -> StateDict:
    """torchvision's VGG and AlexNet are in its detectors without the name `features`."""
    return {
        re.sub(r"^backbone\.(\d)", r"backbone.body.features.\1", n): v for n, v in state.items()
    }


def export_layers(state: StateDict) -> StateDict:
    """The inverse of `convert_layers`."""
    return {n.replace("backbone.body.features.", "backbone."): v for n, v in state.items()}
