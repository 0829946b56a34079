"""Faster R-CNN: Ren et al., Towards Real-Time Object Detection with Region Proposal Networks, 2015.

https://arxiv.org/abs/1506.01497, on a feature pyramid (Lin et al., 2016,
https://arxiv.org/abs/1612.03144), or on one map with RoIPool as in the paper (`fasterrcnn_vgg16`).
References: torchvision's `fasterrcnn_resnet50_fpn` and `fasterrcnn_resnet50_fpn_v2` (Li et al.,
Benchmarking Detection Transfer Learning with Vision Transformers, 2021,
https://arxiv.org/abs/2111.11429), and its parts around VGG16. All shapes are fixed: where an image
has fewer proposals than are drawn, others fill up, and count in nothing but the statistics of a
head with batch normalisation.
"""

import re
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.fpn import FeaturePyramid
from jaxvision.layers.pyramid import by_stride, required
from jaxvision.losses.objective import Ratio
from jaxvision.models.detection.roi_heads import BoxHead, BoxPredictor, box_losses, detect, draw
from jaxvision.models.detection.rpn import RPNHead, Sampling, level_anchors, propose, rpn_losses
from jaxvision.models.detection.targets import Targets, learnable
from jaxvision.models.variant import Variant
from jaxvision.ops.roi import multiscale_roi_align, roi_pool
from jaxvision.state_dict import StateDict

Maps = Sequence[Float[Array, "b _ _ c"]]


class FasterRCNN(nn.Module):
    """Proposals of an RPN, and what a head on the region of each makes of them.

    In evaluation it returns `boxes` [b, d, 4] (x0, y0, x1, y1, pixels of the image), `scores`
    [b, d], by which they fall, `labels` i32 [b, d] and `valid` bool [b, d]. In training, given
    targets, the losses by torchvision's names, not divided yet; the anchors and proposals to learn
    from are drawn from the random stream `dropout`.

    Attributes:
      num_classes: of objects; the background is one more.
      encoder: gives maps of the strides.
      strides: of the encoder's maps that are used.
      width: channels of the pyramid; 0 is none, on one stride.
      pyramid_norm: whether the pyramid is batch-normalised.
      frozen_statistics: whether the encoder's batch norms keep their statistics in training.
      anchor_sizes: in pixels, of each map; a pyramid has one map more than the encoder.
      anchor_ratios: heights by widths.
      rpn_depth: convolutions of the RPN.
      candidates: of a level before suppression, in evaluation and in training.
      proposals: after it, likewise.
      proposal_nms: IoU above which of two proposals of a level the worse is dropped.
      anchor_sampling: which anchors are learnt from: (how many, share of positives at most, IoU
        from which one is positive, IoU below which one is negative).
      pool: "align" or "pool", as the paper.
      pool_size: bins of a region, in rows and columns.
      head_convs, head_hidden, dropout: see `BoxHead`.
      box_sampling: which proposals are learnt from, likewise.
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
    anchor_sizes: tuple[tuple[float, ...], ...] = ((32,), (64,), (128,), (256,), (512,))
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    rpn_depth: int = 1
    candidates: tuple[int, int] = (1000, 2000)
    proposals: tuple[int, int] = (1000, 2000)
    proposal_nms: float = 0.7
    anchor_sampling: tuple[int, float, float, float] = (256, 0.5, 0.7, 0.3)
    pool: str = "align"
    pool_size: int = 7
    head_convs: tuple[int, ...] = ()
    head_hidden: tuple[int, ...] = (1024, 1024)
    dropout: float = 0.0
    box_sampling: tuple[int, float, float, float] = (512, 0.25, 0.5, 0.5)
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    max_detections: int = 100
    dtype: Any = None

    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False, targets: Targets | None = None
    ) -> dict[str, Any]:
        """Detections, or losses in training.

        Args:
          image: the batch.
          train: whether targets are learnt from.
          targets: `boxes`, `box_label`, `box_valid` and perhaps `box_crowd` of each image, and
            `valid` of those that are not padding.

        Raises:
          UserError: the encoder lacks a map, there are not as many `anchor_sizes` as maps, or
            training has no targets.
        """
        return self._run(image, train, targets)

    def heads(self, image: Float[Array, "b h w c"], train: bool = False) -> dict[str, Array]:
        """What the layers put out in evaluation, before anything is chosen.

        `objectness` [b, a] and `rpn_deltas` [b, a, 4] of all anchors; the `proposals` [b, n, 4],
        their `proposal_scores` and whether they are `proposal_valid` [b, n]; `logits` [b, n, k + 1]
        and `deltas` [b, n, k + 1, 4] of each, the background first.
        """
        return self._run(image, train, raw=True)

    @nn.compact
    def _run(
        self, image: Array, train: bool, targets: Targets | None = None, raw: bool = False
    ) -> dict[str, Any]:
        size: tuple[int, int] = (image.shape[1], image.shape[2])
        maps, strides = self._maps(image, train), self.strides
        logits, deltas, anchors = self._rpn(maps, size)
        learning = train and not raw
        proposals = propose(
            logits,
            deltas,
            anchors,
            size,
            self.candidates[learning],
            self.proposals[learning],
            self.proposal_nms,
        )
        losses: dict[str, Ratio] = {}
        places = proposals.boxes
        if learning:
            truth, keys = learnable(targets), jax.random.split(self.make_rng("dropout"))
            samples = draw(proposals, truth, Sampling(*self.box_sampling), keys[0])
            places = samples.boxes
            losses = rpn_losses(
                jnp.concatenate(logits, 1),
                jnp.concatenate(deltas, 1),
                jnp.asarray(np.concatenate(anchors), deltas[0].dtype),
                truth,
                Sampling(*self.anchor_sampling),
                keys[1],
            )
        if self.pool == "pool":
            regions = roi_pool(maps[0], places, self.pool_size, 1 / strides[0])
        else:
            regions = multiscale_roi_align(
                maps[: len(strides)], places, self.pool_size, strides, sampling_ratio=2
            )
        scores, boxes = self._box_head(regions, train)
        if learning:
            return box_losses(scores, boxes, samples) | losses
        if raw:
            return {
                "objectness": jnp.concatenate(logits, 1),
                "rpn_deltas": jnp.concatenate(deltas, 1),
                "proposals": proposals.boxes,
                "proposal_scores": proposals.scores,
                "proposal_valid": proposals.valid,
                "logits": scores,
                "deltas": boxes,
            }
        return detect(
            scores,
            boxes,
            proposals,
            size,
            self.score_threshold,
            self.nms_threshold,
            self.max_detections,
        )

    def _maps(self, image: Array, train: bool) -> Maps:
        found = self.encoder(image, train and not self.frozen_statistics)
        maps = required(by_stride(self.encoder, image, found), self.strides, "Faster R-CNN")
        if not self.width:
            return maps
        pyramid = FeaturePyramid(
            self.width, "pool", norm=self.pyramid_norm, dtype=self.dtype, name="backbone.fpn"
        )
        return pyramid(maps, train)

    def _rpn(self, maps: Maps, size: tuple[int, int]) -> tuple[Any, Any, Any]:
        anchors = level_anchors(size, maps, self.anchor_sizes, self.anchor_ratios)
        count = len(self.anchor_sizes[0]) * len(self.anchor_ratios)
        head = RPNHead(count, self.rpn_depth, dtype=self.dtype, name="rpn.head")
        return *head(maps), anchors

    def _box_head(self, regions: Array, train: bool) -> tuple[Array, Array]:
        batch, boxes = regions.shape[:2]
        head = BoxHead(
            self.head_hidden,
            self.head_convs,
            self.dropout,
            dtype=self.dtype,
            name="roi_heads.box_head",
        )
        x = head(regions.reshape(-1, *regions.shape[2:]), train)
        predict = BoxPredictor(self.num_classes, dtype=self.dtype, name="roi_heads.box_predictor")
        return predict(x.reshape(batch, boxes, -1))


_EPSILON = 1e-5  # of batch normalisation


def convert(state: StateDict) -> StateDict:
    """Brings torchvision's published names to those of its present code.

    Files of 2019 number the convolutions of the pyramid and the RPN otherwise. Their frozen batch
    norms add nothing to the variance, from which what ours adds is therefore taken off.
    """
    if "backbone.fpn.inner_blocks.0.weight" not in state:
        return dict(state)
    renamed = {}
    for name, value in state.items():
        name = re.sub(r"(fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$", r"\1.0.\2", name)
        name = re.sub(r"(rpn\.head\.conv)\.(weight|bias)$", r"\1.0.0.\2", name)
        renamed[name] = value - _EPSILON if name.endswith("running_var") else value
    return renamed


def _convert_vgg(state: StateDict) -> StateDict:
    """torchvision's VGG is in its detector without the name `features`."""
    return {
        re.sub(r"^backbone\.(\d)", r"backbone.body.features.\1", n): v for n, v in state.items()
    }


def _export_vgg(state: StateDict) -> StateDict:
    return {n.replace("backbone.body.features.", "backbone."): v for n, v in state.items()}


_REN = "Ren et al. 2015, https://arxiv.org/abs/1506.01497"
_CLASSIFIER = ("roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred")

VARIANTS = {
    "fasterrcnn_resnet50_fpn": Variant(
        FasterRCNN,
        {"encoder": "resnet50"},
        "torchvision fasterrcnn_resnet50_fpn",
        (800, 800, 3),
        f"{_REN}; Lin et al. 2016, https://arxiv.org/abs/1612.03144",
        classifier=_CLASSIFIER,
        first="backbone.body.conv1",
        convert=convert,
    ),
    "fasterrcnn_resnet50_fpn_v2": Variant(
        FasterRCNN,
        {
            "encoder": "resnet50",
            "pyramid_norm": True,
            "rpn_depth": 2,
            "head_convs": (256, 256, 256, 256),
            "head_hidden": (1024,),
        },
        "torchvision fasterrcnn_resnet50_fpn_v2",
        (800, 800, 3),
        f"{_REN}; Li et al. 2021, https://arxiv.org/abs/2111.11429",
        classifier=_CLASSIFIER,
        first="backbone.body.conv1",
    ),
    "fasterrcnn_vgg16": Variant(
        FasterRCNN,
        {
            "encoder": "vgg16",
            "strides": (16,),
            "width": 0,
            "anchor_sizes": ((128, 256, 512),),
            "pool": "pool",
            "head_hidden": (4096, 4096),
        },
        "torchvision FasterRCNN(vgg16.features[:-1], roi_pool)",
        (608, 800, 3),
        _REN,
        classifier=_CLASSIFIER,
        first="backbone.body.features.0",
        convert=_convert_vgg,
        export=_export_vgg,
    ),
}
