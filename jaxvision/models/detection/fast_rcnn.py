"""Fast R-CNN and SPP-net: given proposals, classified from one pass of the image.

Fast R-CNN: Girshick, Fast R-CNN, 2015, https://arxiv.org/abs/1504.08083; on a feature pyramid as in
Lin et al., Feature Pyramid Networks for Object Detection, 2016, https://arxiv.org/abs/1612.03144.
`fastrcnn_resnet50` has RoIPool on a dilated last stage. SPP-net: He et al., Spatial Pyramid Pooling
in Deep Convolutional Networks for Visual Recognition, 2014, https://arxiv.org/abs/1406.4729: bins
of 6, 3, 2 and 1 a side, and convolutions that stay as they are. Its linear layers are trained here
by Fast R-CNN's losses, in the paper for classes alone, with SVMs and a regression after it.

References: torchvision's `FasterRCNN` without its RPN, whose heads are given the proposals, and for
SPP-net its RoIPool once a level. All shapes are fixed, see `faster_rcnn.py`.
"""

from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from jaxvision.models.detection.regions import (
    CLASSIFIER,
    RegionDetector,
    convert_layers,
    export_layers,
    learnt_by,
)
from jaxvision.models.detection.roi_heads import second_stage
from jaxvision.models.detection.rpn import Proposals
from jaxvision.models.detection.targets import Targets
from jaxvision.models.variant import Variant


class FastRCNN(RegionDetector):
    """Classes and boxes of regions that an algorithm proposed, see `RegionDetector`.

    It returns what `FasterRCNN` does, and learns from proposals of each image, the objects' own
    boxes among them. Without proposals it looks at one region, the whole image: enough for fresh
    weights and tables of layers.
    """

    PROPOSALS: ClassVar[bool] = True

    # Section 2.3: of 64 regions of an image a quarter are objects, the others overlap one a little.
    box_sampling: tuple[float, ...] = (64, 0.25, 0.5, 0.5, 0.1)

    def __call__(
        self,
        image: Float[Array, "b h w c"],
        proposals: Float[Array, "b p 4"] | None = None,
        proposal_valid: Bool[Array, "b p"] | None = None,
        train: bool = False,
        targets: Targets | None = None,
    ) -> dict[str, Any]:
        """Detections, or losses in training.

        Args:
          image: the batch.
          proposals: regions of each image (x0, y0, x1, y1), in its pixels.
          proposal_valid: which of them are no padding; by default all.
          train: whether targets are learnt from.
          targets: see `FasterRCNN`.

        Raises:
          UserError: the encoder lacks a map, or training has no targets.
        """
        return self._run(image, proposals, proposal_valid, train, targets)

    def heads(
        self,
        image: Float[Array, "b h w c"],
        proposals: Float[Array, "b p 4"] | None = None,
        proposal_valid: Bool[Array, "b p"] | None = None,
        train: bool = False,
    ) -> dict[str, Array]:
        """`logits` [b, p, k + 1] and `deltas` [b, p, k + 1, 4], the background first."""
        return self._run(image, proposals, proposal_valid, train, raw=True)

    @nn.compact
    def _run(
        self,
        image: Array,
        proposals: Array | None,
        valid: Array | None,
        train: bool,
        targets: Targets | None = None,
        raw: bool = False,
    ) -> dict[str, Any]:
        size: tuple[int, int] = (image.shape[1], image.shape[2])
        learning, _ = learnt_by(self, targets, train and not raw)
        if proposals is None:
            whole = jnp.array([0, 0, size[1], size[0]], image.dtype)
            proposals = jnp.broadcast_to(whole, (image.shape[0], 1, 4))
        if valid is None:
            valid = jnp.ones(proposals.shape[:2], bool)
        seen = self._seen(image, train)
        made, _ = second_stage(
            self,
            Proposals(proposals, valid.astype(proposals.dtype), valid),
            lambda boxes, valid: self._classify(seen, boxes, valid, train),
            size,
            learning,
            raw,
        )
        return made


_GIRSHICK = "Girshick 2015, https://arxiv.org/abs/1504.08083"
_HE = "He et al. 2014, https://arxiv.org/abs/1406.4729"
_INPUTS = ("image", "proposals", "proposal_valid")
_ONE_MAP = {"strides": (16,), "width": 0, "pool": "pool"}
_SPP = {
    **_ONE_MAP,
    "pool_size": (6, 3, 2, 1),
    "head_hidden": (4096, 4096),
    "frozen_encoder": True,
}


def _of_layers(encoder: str, paper: str, options: dict[str, Any]) -> Variant:
    """On a network whose layers are in a row."""
    pooled = "roi_pool" if isinstance(options.get("pool_size", 7), int) else "a pyramid of roi_pool"
    return Variant(
        FastRCNN,
        {"encoder": encoder, **options},
        f"torchvision FasterRCNN({encoder}.features[:-1], {pooled}) without RPN",
        (608, 800, 3),
        paper,
        inputs=_INPUTS,
        classifier=CLASSIFIER,
        first="backbone.body.features.0",
        convert=convert_layers,
        export=export_layers,
    )


def _of_resnet50(reference: str, options: dict[str, Any]) -> Variant:
    return Variant(
        FastRCNN,
        {"encoder": "resnet50", **options},
        reference,
        (800, 800, 3),
        _GIRSHICK,
        inputs=_INPUTS,
        classifier=CLASSIFIER,
        first="backbone.body.conv1",
    )


VARIANTS = {
    "fastrcnn_vgg16": _of_layers("vgg16", _GIRSHICK, {**_ONE_MAP, "head_hidden": (4096, 4096)}),
    "fastrcnn_resnet50": _of_resnet50(
        "torchvision FasterRCNN(dilated resnet50, roi_pool) without RPN",
        {**_ONE_MAP, "encoder_options": {"output_stride": 16}},
    ),
    "fastrcnn_resnet50_fpn": _of_resnet50("torchvision fasterrcnn_resnet50_fpn without RPN", {}),
    "sppnet_alexnet": _of_layers("alexnet", _HE, _SPP),
    "sppnet_vgg16": _of_layers("vgg16", _HE, _SPP),
}
