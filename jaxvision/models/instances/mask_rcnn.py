"""Mask R-CNN: He et al., Mask R-CNN, 2017, https://arxiv.org/abs/1703.06870.

References: torchvision's `maskrcnn_resnet50_fpn` and `maskrcnn_resnet50_fpn_v2` (Li et al.,
Benchmarking Detection Transfer Learning with Vision Transformers, 2021,
https://arxiv.org/abs/2111.11429).
"""

import re
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from jaxvision.errors import UserError
from jaxvision.layers.convolution import Conv2d, ConvTranspose2d
from jaxvision.layers.normalization import BatchNorm
from jaxvision.losses.instances import mask_loss
from jaxvision.losses.objective import Ratio
from jaxvision.models.detection.faster_rcnn import VARIANTS as _FASTER_RCNN
from jaxvision.models.detection.faster_rcnn import FasterRCNN, convert
from jaxvision.models.detection.regions import CLASSIFIER, Maps, Seen
from jaxvision.models.detection.roi_heads import Samples
from jaxvision.models.detection.targets import Targets
from jaxvision.models.variant import Variant
from jaxvision.ops.forms import accumulable
from jaxvision.ops.roi import masks_in_boxes
from jaxvision.state_dict import StateDict


class MaskHead(nn.Module):
    """3x3 convolutions on what is in each region.

    Attributes:
      widths: channels of each.
      norm: whether they are batch-normalised instead of biased.
      dtype: what is computed in.
    """

    widths: tuple[int, ...] = (256, 256, 256, 256)
    norm: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], train: bool, rows: Bool[Array, " n"] | None = None
    ) -> Float[Array, "n h w d"]:
        """In training `rows` say which regions are no padding, and have statistics."""
        for index, width in enumerate(self.widths):
            x = Conv2d(width, use_bias=not self.norm, dtype=self.dtype, name=f"{index}_0")(x)
            if self.norm:
                x = BatchNorm(dtype=self.dtype, name=f"{index}_1")(x, train, rows)
            x = nn.relu(x)
        return x


class MaskPredictor(nn.Module):
    """Twice as many cells a side, and a mask of each class.

    Attributes:
      classes: masks.
      width: channels of the transposed convolution.
      dtype: what is computed in.
    """

    classes: int
    width: int = 256
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 k"]:
        x = ConvTranspose2d(self.width, 2, 2, dtype=self.dtype, name="conv5_mask")(x)
        x = Conv2d(self.classes, 1, dtype=self.dtype, name="mask_fcn_logits")(nn.relu(x))
        return accumulable(x)


class MaskRCNN(FasterRCNN):
    """Faster R-CNN, and a mask of each object that it finds.

    Beside what `FasterRCNN` gives there are `masks` [b, d, m, m], how likely each cell of a box is
    its object's, 0 to 1. Targets are `instance_masks` too, uint8 [b, n, h, p], bits as in
    `jaxvision.ops.bits`, and perhaps `mask_valid` [b, n], of which objects there is a mask: the
    others teach boxes alone.

    Attributes, beside those of `FasterRCNN`:
      mask_convs: channels of the head's convolutions; with `head_blocks` there are none.
      mask_norm: whether they are batch-normalised.
      mask_width: channels of the transposed convolution after them.
      mask_pool_size: cells a side of a region that the head sees; a mask has twice as many.
      class_agnostic_masks: whether there is one mask for all classes.
    """

    PARTS: ClassVar[tuple[str, ...]] = ("masks",)

    mask_convs: tuple[int, ...] = (256, 256, 256, 256)
    mask_norm: bool = False
    mask_width: int = 256
    mask_pool_size: int = 14
    class_agnostic_masks: bool = False

    def _mask_heads(self, seen: Seen) -> tuple[nn.Module, nn.Module]:
        head: nn.Module = seen.stage or MaskHead(
            self.mask_convs, self.mask_norm, self.dtype, name="roi_heads.mask_head"
        )
        # The first is the background's, which learns nothing, as in the reference.
        classes = 1 if self.class_agnostic_masks else self.num_classes + 1
        predict = MaskPredictor(
            classes, self.mask_width, self.dtype, name="roi_heads.mask_predictor"
        )
        return head, predict

    def _mask_logits(
        self,
        heads: tuple[Callable[..., Array], ...],
        maps: Maps,
        boxes: Float[Array, "b n 4"],
        valid: Bool[Array, "b n"],
        train: bool,
    ) -> Float[Array, "b n h w k"]:
        head, predict = heads
        regions = self._aligned(maps, boxes, self.mask_pool_size)
        batch, count = regions.shape[:2]
        x = predict(head(regions.reshape(-1, *regions.shape[2:]), train, valid.reshape(-1)))
        return x.reshape(batch, count, *x.shape[1:])

    def _more_losses(
        self, seen: Seen, samples: Samples, targets: Targets, width: int, train: bool
    ) -> dict[str, Ratio]:
        if "instance_masks" not in targets:
            raise UserError(
                f"{type(self).__name__} in training needs the targets instance_masks, a mask of "
                "each object; the data have none."
            )

        def mean(heads: tuple[Callable[..., Array], ...], maps: Maps, learnt: Samples) -> Ratio:
            valid = learnt.valid
            if "mask_valid" in targets:
                valid &= jnp.take_along_axis(targets["mask_valid"], learnt.matches, 1)
            logits = self._mask_logits(heads, maps, learnt.boxes, learnt.valid, train)
            wanted = masks_in_boxes(
                targets["instance_masks"], learnt.boxes, learnt.matches, logits.shape[2], width
            )
            return mask_loss(logits, wanted, learnt.labels, valid)

        heads = self._mask_heads(seen)
        normed = self.mask_norm if seen.stage is None else not seen.stage.frozen
        return {"loss_mask": self._learn_objects(mean, heads, seen.maps, samples, whole=normed)}

    def _more_found(self, seen: Seen, found: dict[str, Array], train: bool) -> dict[str, Array]:
        heads = self._mask_heads(seen)
        logits = self._mask_logits(heads, seen.maps, found["boxes"], found["valid"], train)
        if not self.class_agnostic_masks:
            label = found["labels"][..., None, None, None] + 1
            logits = jnp.take_along_axis(logits, label, -1)
        return {"masks": jax.nn.sigmoid(logits[..., 0])}


def _convert(state: StateDict) -> StateDict:
    """Also files whose mask head is numbered otherwise."""
    name = re.compile(r"^roi_heads\.mask_head\.mask_fcn(\d+)\.")
    renamed = {
        name.sub(lambda found: f"roi_heads.mask_head.{int(found[1]) - 1}.0.", key): value
        for key, value in state.items()
    }
    return convert(renamed)


_HE = "He et al. 2017, https://arxiv.org/abs/1703.06870"
_CLASSIFIER = (*CLASSIFIER, "roi_heads.mask_predictor.mask_fcn_logits")

VARIANTS = {
    "maskrcnn_resnet50_fpn": Variant(
        MaskRCNN,
        {"encoder": "resnet50"},
        "torchvision maskrcnn_resnet50_fpn",
        (800, 800, 3),
        f"{_HE}; Lin et al. 2016, https://arxiv.org/abs/1612.03144",
        classifier=_CLASSIFIER,
        first="backbone.body.conv1",
        convert=_convert,
    ),
    "maskrcnn_resnet50_c4": Variant(
        MaskRCNN,
        {
            "encoder": "resnet50",
            "encoder_options": {"depths": (3, 4, 6)},
            "strides": (16,),
            "width": 0,
            "anchor_sizes": ((32, 64, 128, 256, 512),),
            "pool_size": 14,
            "head_blocks": 3,
            "frozen_statistics": True,
        },
        "torchvision's parts, put together as Detectron2's mask_rcnn_R_50_C4",
        (800, 800, 3),
        _HE,
        classifier=_CLASSIFIER,
        first="backbone.body.conv1",
    ),
    "maskrcnn_resnet50_fpn_v2": Variant(
        MaskRCNN,
        {
            **_FASTER_RCNN["fasterrcnn_resnet50_fpn_v2"].options,
            "mask_norm": True,
        },
        "torchvision maskrcnn_resnet50_fpn_v2",
        (800, 800, 3),
        f"{_HE}; Li et al. 2021, https://arxiv.org/abs/2111.11429",
        classifier=_CLASSIFIER,
        first="backbone.body.conv1",
    ),
}
