"""R-FCN: Dai et al., Object Detection via Region-based Fully Convolutional Networks, 2016.

https://arxiv.org/abs/1605.06409. Everything with parameters is a convolution over the image; of a
region nothing is computed but the mean of what each of its k x k parts finds on maps of its own.
Reference: torchvision's parts, `resnet101` with a dilated last stage, its RPN on the stage before,
`ps_roi_pool` and losses. As in the paper boxes are not of a class; its code predicts one for the
background too, which nothing learns. RPN's layers are torchvision's, as wide as their map.
"""

from typing import Any, ClassVar

from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.pyramid import feature_strides, required
from jaxvision.models.detection.regions import learnt_by
from jaxvision.models.detection.roi_heads import second_stage
from jaxvision.models.detection.rpn import region_proposals, shown
from jaxvision.models.detection.targets import Targets
from jaxvision.models.variant import Variant
from jaxvision.ops.forms import accumulable
from jaxvision.ops.roi import ps_roi_pool


class RFCN(nn.Module):
    """Proposals of an RPN, and the vote of the parts of each.

    It returns and learns what `FasterRCNN` does.

    Attributes:
      num_classes: of objects; the background is one more.
      encoder: gives maps of the stride: of several the RPN sees the first one, regions the last.
      stride: of the maps.
      frozen_statistics: whether the encoder's batch norms keep their statistics in training.
      width: channels between the encoder and the score maps.
      bins: k, parts of a region in rows and columns; each has a score map for each class.
      hard_examples: proposals of an image that are learnt from, those with the highest losses of
        what `box_sampling` draws; 0: all that it draws. The paper's are 128 of all, that is,
        `box_sampling=(10000, 1.0, 0.5, 0.5)`.
      anchor_sizes, anchor_ratios, rpn_depth, candidates, proposals, proposal_nms, anchor_sampling:
        see `FasterRCNN`.
      box_sampling, score_threshold, nms_threshold, max_detections, dtype: see `RegionDetector`.
    """

    ENDS: ClassVar[tuple[str, ...]] = ("classes",)
    ENCODER: ClassVar[str] = "backbone.body"
    preserve_adopted_names: ClassVar[bool] = True

    num_classes: int = 90
    encoder: Any = None
    stride: int = 16
    frozen_statistics: bool = False
    width: int = 1024
    bins: int = 7
    hard_examples: int = 0
    anchor_sizes: tuple[tuple[float, ...], ...] = ((128, 256, 512),)
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    rpn_depth: int = 1
    candidates: tuple[int, int] = (6000, 6000)
    proposals: tuple[int, int] = (300, 300)
    proposal_nms: float = 0.7
    anchor_sampling: tuple[int, float, float, float] = (256, 0.5, 0.7, 0.3)
    box_sampling: tuple[float, ...] = (128, 0.25, 0.5, 0.5)
    score_threshold: float = 0.05
    nms_threshold: float = 0.3
    max_detections: int = 100
    dtype: Any = None

    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False, targets: Targets | None = None
    ) -> dict[str, Any]:
        """Detections, or losses in training; see `FasterRCNN`.

        Raises:
          UserError: the encoder has no map of the stride, there is not one list of `anchor_sizes`,
            or training has no targets.
        """
        return self._run(image, train, targets)

    def heads(self, image: Float[Array, "b h w c"], train: bool = False) -> dict[str, Array]:
        """What `FasterRCNN.heads` gives; `deltas` are [b, n, 1, 4], one box for all classes."""
        return self._run(image, train, raw=True)

    def stages(self, image: Float[Array, "b h w c"]) -> dict[str, Array]:
        """As `FasterRCNN.stages`."""
        return shown(self.heads(image))

    @nn.compact
    def _run(
        self, image: Array, train: bool, targets: Targets | None = None, raw: bool = False
    ) -> dict[str, Any]:
        size: tuple[int, int] = (image.shape[1], image.shape[2])
        maps = self.encoder(image, train and not self.frozen_statistics)
        strides = feature_strides(self.encoder, image, maps)
        required(dict.fromkeys(strides), (self.stride,), "R-FCN")
        maps = [x for x, stride in zip(maps, strides, strict=True) if stride == self.stride]
        of_regions, of_anchors = learnt_by(self, targets, train and not raw)
        found = region_proposals(self, maps[:1], size, of_anchors)
        scores, shifts = self._score_maps(maps[-1])

        def vote(maps: Array, boxes: Array) -> Array:
            return ps_roi_pool(maps, boxes, self.bins, 1 / self.stride).mean((2, 3))

        made, _ = second_stage(
            self,
            found.proposals,
            lambda boxes, _: (vote(scores, boxes), vote(shifts, boxes)[:, :, None]),
            size,
            of_regions,
            raw,
            self.hard_examples,
        )
        return {**made, **(found.outputs if raw else found.losses)}

    def _score_maps(
        self, x: Float[Array, "b h w c"]
    ) -> tuple[Float[Array, "b h w d"], Float[Array, "b h w e"]]:
        """Of the classes with the background, and of the sides of a box."""

        def conv(features: int, name: str) -> Conv2d:
            init = nn.initializers.normal(0.01)
            return Conv2d(features, 1, dtype=self.dtype, kernel_init=init, name=name)

        x = nn.relu(conv(self.width, "roi_heads.new")(x))
        parts = self.bins**2
        scores = conv((self.num_classes + 1) * parts, "roi_heads.cls")(x)
        return accumulable(scores), accumulable(conv(4 * parts, "roi_heads.reg")(x))


def _variant(encoder: str) -> Variant:
    return Variant(
        RFCN,
        {"encoder": encoder, "encoder_options": {"output_stride": 16}},
        f"torchvision dilated {encoder}, RegionProposalNetwork, ps_roi_pool",
        (608, 800, 3),
        "Dai et al. 2016, https://arxiv.org/abs/1605.06409",
        classifier=("roi_heads.cls",),
        first="backbone.body.conv1",
    )


VARIANTS = {name: _variant(name[5:]) for name in ("rfcn_resnet50", "rfcn_resnet101")}
