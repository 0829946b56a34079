"""Panoptic FPN: Kirillov et al., Panoptic Feature Pyramid Networks, 2019.

https://arxiv.org/abs/1901.02446: Mask R-CNN, and a light branch on the same pyramid that says what
stuff each pixel is of. References: torchvision's `maskrcnn_resnet50_fpn`, and mmdetection's
`PanopticFPNHead`, whose loss has here the mean over the pixels that are labelled, as in the paper.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.errors import UserError
from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.normalization import GroupNorm
from jaxvision.losses.classification import cross_entropy
from jaxvision.losses.objective import Ratio, masked_ratio
from jaxvision.models.detection.regions import Seen
from jaxvision.models.detection.roi_heads import Samples
from jaxvision.models.detection.targets import Targets
from jaxvision.models.instances.mask_rcnn import VARIANTS as _MASK_RCNN
from jaxvision.models.instances.mask_rcnn import MaskRCNN
from jaxvision.models.variant import Variant
from jaxvision.ops.forms import accumulable
from jaxvision.ops.resize import resize


class SemanticHead(nn.Module):
    """Brings the maps of a pyramid to the size of the finest, adds them up, and classifies places.

    A map that is coarser by 2^n has n 3x3 convolutions, and is enlarged twofold after each.

    Attributes:
      classes: outputs.
      width: channels of the convolutions.
      groups: of their group norms.
      dtype: what is computed in.
    """

    classes: int
    width: int = 128
    groups: int = 32
    dtype: Any = None

    @nn.compact
    def __call__(self, maps: Sequence[Float[Array, "b _ _ d"]]) -> Float[Array, "b h w k"]:
        """Takes maps finest first."""
        summands = []
        for level, x in enumerate(maps):
            for index in range(max(level, 1)):
                place = f"conv_upsample_layers.{level}.conv.{index}"
                conv = Conv2d(self.width, use_bias=False, dtype=self.dtype, name=f"{place}.conv")
                norm = GroupNorm(self.groups, dtype=self.dtype, name=f"{place}.gn")
                x = nn.relu(norm(conv(x)))
                if level:
                    x = resize(x, maps[level - 1 - index].shape[1:3])
            summands.append(x)
        init = nn.initializers.normal(0.01)
        classify = Conv2d(self.classes, 1, dtype=self.dtype, kernel_init=init, name="conv_logits")
        finest, *coarser = summands
        return accumulable(classify(sum(coarser, finest)))


class PanopticFPN(MaskRCNN):
    """Mask R-CNN for things, and for stuff the class of each place of the pyramid's finest map.

    Beside what `MaskRCNN` gives there is `semantic` [b, h, w, s + 1], logits of the classes of
    stuff, then of all things as one. It has the size of the finest map, a sixteenth of the image's
    pixels: whoever needs all of them enlarges it, as the loss does. Targets are `segmentation`
    [b, h, w] too, classes in this order; others are void.

    Attributes, beside those of `MaskRCNN`:
      num_classes: of things.
      stuff_classes: of stuff.
      semantic_width, semantic_groups: see `SemanticHead`.
      semantic_weight: of its loss among the others.
    """

    PARTS: ClassVar[tuple[str, ...]] = ("masks", "semantic")

    stuff_classes: int = 53
    semantic_width: int = 128
    semantic_groups: int = 32
    semantic_weight: float = 0.5

    def _semantic(self, seen: Seen) -> Float[Array, "b h w k"]:
        head = SemanticHead(
            self.stuff_classes + 1,
            self.semantic_width,
            self.semantic_groups,
            self.dtype,
            name="semantic_head",
        )
        return head(seen.maps[: len(self.strides)])

    def _more_losses(
        self, seen: Seen, samples: Samples, targets: Targets, width: int, train: bool
    ) -> dict[str, Ratio]:
        if "segmentation" not in targets:
            raise UserError(
                f"{type(self).__name__} in training needs the targets segmentation, the class of "
                "each pixel; the data have none, or the task does not give it."
            )
        truth = targets["segmentation"].astype(jnp.int32)
        logits = resize(self._semantic(seen), truth.shape[1:3])
        counted = (truth >= 0) & (truth < logits.shape[-1])
        if "valid" in targets:
            counted &= targets["valid"][:, None, None]
        entropy, weight = cross_entropy(logits, jnp.where(counted, truth, 0))
        loss = masked_ratio(entropy, weight, counted).scaled(self.semantic_weight)
        masks = super()._more_losses(seen, samples, targets, width, train)
        return {**masks, "loss_semantic": loss}

    def _more_found(self, seen: Seen, found: dict[str, Array], train: bool) -> dict[str, Array]:
        masks = super()._more_found(seen, found, train)
        return {**masks, "semantic": self._semantic(seen)}

    def _more_heads(self, seen: Seen) -> dict[str, Array]:
        return {"semantic": self._semantic(seen)}


_LIKE = _MASK_RCNN["maskrcnn_resnet50_fpn"]

VARIANTS = {
    "panoptic_fpn_resnet50": Variant(
        PanopticFPN,
        {**_LIKE.options},
        "torchvision maskrcnn_resnet50_fpn with mmdetection's PanopticFPNHead as semantic_head",
        _LIKE.input_shape,
        "Kirillov et al. 2019, https://arxiv.org/abs/1901.02446",
        classifier=(*_LIKE.classifier, "semantic_head.conv_logits"),
        first=_LIKE.first,
        convert=_LIKE.convert,
    ),
}
