"""Faster R-CNN: Ren et al., Towards Real-Time Object Detection with Region Proposal Networks, 2015.

https://arxiv.org/abs/1506.01497, on a feature pyramid (Lin et al., 2016,
https://arxiv.org/abs/1612.03144), or on one map with RoIPool as in the paper (`fasterrcnn_vgg16`).
References: torchvision's `fasterrcnn_resnet50_fpn` and `fasterrcnn_resnet50_fpn_v2` (Li et al.,
Benchmarking Detection Transfer Learning with Vision Transformers, 2021,
https://arxiv.org/abs/2111.11429), and its parts around VGG16. All shapes are fixed: where an image
has fewer proposals than are drawn, others fill up, and count in nothing.
"""

import functools
import re
from collections.abc import Callable
from typing import Any

from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.losses.objective import Ratio
from jaxvision.losses.parts import ratio_in_parts
from jaxvision.models.detection.regions import (
    CLASSIFIER,
    Maps,
    RegionDetector,
    Seen,
    convert_layers,
    export_layers,
    learnt_by,
)
from jaxvision.models.detection.roi_heads import Samples, second_stage
from jaxvision.models.detection.rpn import region_proposals, shown
from jaxvision.models.detection.targets import Targets
from jaxvision.models.variant import Variant
from jaxvision.state_dict import StateDict

_AT_ONCE = 16  # proposals of an image whose masks or key points are learnt at the same time

# (heads, maps, proposals) to what is averaged over the proposals.
MeanOfObjects = Callable[[tuple[Callable[..., Any], ...], Maps, Samples], Ratio]


class FasterRCNN(RegionDetector):
    """Proposals of an RPN, and what a head on the region of each makes of them.

    In evaluation it returns `boxes` [b, d, 4] (x0, y0, x1, y1, pixels of the image), `scores`
    [b, d], by which they fall, `labels` i32 [b, d] and `valid` bool [b, d]. In training, given
    targets, the losses by torchvision's names, not divided yet; the anchors and proposals to learn
    from are drawn from the random stream `dropout`.

    Attributes, beside those of `RegionDetector`:
      anchor_sizes: in pixels, of each map; a pyramid has one map more than the encoder.
      anchor_ratios: heights by widths.
      rpn_depth: convolutions of the RPN.
      candidates: of a level before suppression, in evaluation and in training.
      proposals: after it, likewise.
      proposal_nms: IoU above which of two proposals of a level the worse is dropped.
      anchor_sampling: which anchors are learnt from: see `Sampling`.
    """

    anchor_sizes: tuple[tuple[float, ...], ...] = ((32,), (64,), (128,), (256,), (512,))
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    rpn_depth: int = 1
    candidates: tuple[int, int] = (1000, 2000)
    proposals: tuple[int, int] = (1000, 2000)
    proposal_nms: float = 0.7
    anchor_sampling: tuple[int, float, float, float] = (256, 0.5, 0.7, 0.3)

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

    def stages(self, image: Float[Array, "b h w c"]) -> dict[str, Array]:
        """What is seen on the way: `heat/objectness 0` [b, i, j], ..., of the best anchor at each
        place of each map, 0 to 1; `proposals`, see `heads`."""
        return shown(self.heads(image))

    @nn.compact
    def _run(
        self, image: Array, train: bool, targets: Targets | None = None, raw: bool = False
    ) -> dict[str, Any]:
        size: tuple[int, int] = (image.shape[1], image.shape[2])
        seen = self._seen(image, train)
        of_regions, of_anchors = learnt_by(self, targets, train and not raw)
        found = region_proposals(self, seen.maps, size, of_anchors)
        made, samples = second_stage(
            self,
            found.proposals,
            lambda boxes, valid: self._classify(seen, boxes, valid, train),
            size,
            of_regions,
            raw,
        )
        if samples is not None and targets is not None:
            return {
                **made,
                **found.losses,
                **self._more_losses(seen, samples, targets, size[1], train),
            }
        if raw:
            return {**made, **found.outputs, **self._more_heads(seen)}
        return {**made, **self._more_found(seen, made, train)}

    def _learn_objects(
        self,
        mean: MeanOfObjects,
        heads: tuple[nn.Module, ...],
        maps: Maps,
        samples: Samples,
        whole: bool = False,
    ) -> Ratio:
        """A mean over the drawn proposals that have an object.

        Those that may have one are often ten times as many as those that do, so it is computed of
        some at a time; of the `whole` where heads have statistics of all.
        """
        number, share, *_ = self.box_sampling
        learnt = samples.of_objects(int(number * share))
        if self.is_initializing() or whole:
            return mean(heads, maps, learnt)
        modules, variables = zip(*(head.unbind() for head in heads))

        def of_some(learning: tuple[Any, Maps], learnt: Samples) -> Ratio:
            params, maps = learning
            bound = (
                functools.partial(module.apply, {**own, "params": part})
                for module, own, part in zip(modules, variables, params)
            )
            return mean(tuple(bound), maps, learnt)

        learning = (tuple(own["params"] for own in variables), tuple(maps))
        return ratio_in_parts(of_some, learning, learnt, learnt.valid.sum(1).max(), _AT_ONCE)

    def _more_losses(
        self, seen: Seen, samples: Samples, targets: Targets, width: int, train: bool
    ) -> dict[str, Ratio]:
        """Of heads beside those of classes and boxes, in an image of a width in pixels."""
        return {}

    def _more_found(self, seen: Seen, found: dict[str, Array], train: bool) -> dict[str, Array]:
        """What such heads find in the detections' boxes."""
        return {}

    def _more_heads(self, seen: Seen) -> dict[str, Array]:
        """What such heads put out that look at no boxes."""
        return {}


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


_REN = "Ren et al. 2015, https://arxiv.org/abs/1506.01497"

VARIANTS = {
    "fasterrcnn_resnet50_fpn": Variant(
        FasterRCNN,
        {"encoder": "resnet50"},
        "torchvision fasterrcnn_resnet50_fpn",
        (800, 800, 3),
        f"{_REN}; Lin et al. 2016, https://arxiv.org/abs/1612.03144",
        classifier=CLASSIFIER,
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
        classifier=CLASSIFIER,
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
        classifier=CLASSIFIER,
        first="backbone.body.features.0",
        convert=convert_layers,
        export=export_layers,
    ),
}
