"""Keypoint R-CNN: He et al., Mask R-CNN, 2017, https://arxiv.org/abs/1703.06870, section 5.

Reference: torchvision's `keypointrcnn_resnet50_fpn`.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.convolution import Conv2d, ConvTranspose2d
from jaxvision.losses.instances import keypoint_loss
from jaxvision.losses.objective import Ratio
from jaxvision.models.detection.faster_rcnn import FasterRCNN, convert
from jaxvision.models.detection.regions import CLASSIFIER, Maps, Seen
from jaxvision.models.detection.roi_heads import Samples
from jaxvision.models.detection.targets import Targets, learnable_keypoints
from jaxvision.models.variant import Variant
from jaxvision.ops.forms import accumulable
from jaxvision.ops.resize import resize
from jaxvision.ops.roi import cells_of_keypoints, highest_places


class KeypointHead(nn.Module):
    """3x3 convolutions on what is in each region.

    Attributes:
      widths: channels of each.
      dtype: what is computed in.
    """

    widths: tuple[int, ...] = (512,) * 8
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w d"]:
        for index, width in enumerate(self.widths):
            x = nn.relu(Conv2d(width, dtype=self.dtype, name=str(2 * index))(x))
        return x


class KeypointPredictor(nn.Module):
    """A heat map of each key point, four times as large as what it is made of.

    Attributes:
      keypoints: of an object.
      dtype: what is computed in.
    """

    keypoints: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h4 w4 k"]:
        layer = ConvTranspose2d(
            self.keypoints, 4, 2, padding=1, dtype=self.dtype, name="kps_score_lowres"
        )
        x = accumulable(layer(x))
        return resize(x, (2 * x.shape[1], 2 * x.shape[2]), "bilinear")


class KeypointRCNN(FasterRCNN):
    """Faster R-CNN, and the key points of each object that it finds.

    Beside what `FasterRCNN` gives there are `keypoints` [b, d, k, 3]: x and y in pixels of the
    image, and the height of the heat map there; and `keypoint_heat` [b, d, m, m], how likely some
    key point is in each cell of a box, the likeliest as 1. Targets are `keypoints` [b, n, k, 3]
    too, (x, y, visible).

    Attributes, beside those of `FasterRCNN`:
      keypoints: of an object.
      keypoint_convs: channels of the head's convolutions.
      keypoint_pool_size: cells a side of a region that the head sees; a heat map has four times as
        many.
    """

    PARTS: ClassVar[tuple[str, ...]] = ("keypoints",)

    keypoints: int = 17
    keypoint_convs: tuple[int, ...] = (512,) * 8
    keypoint_pool_size: int = 14

    def _keypoint_heads(self) -> tuple[nn.Module, nn.Module]:
        head = KeypointHead(self.keypoint_convs, self.dtype, name="roi_heads.keypoint_head")
        predict = KeypointPredictor(self.keypoints, self.dtype, name="roi_heads.keypoint_predictor")
        return head, predict

    def _heatmaps(
        self, heads: tuple[Callable[..., Array], ...], maps: Maps, boxes: Float[Array, "b n 4"]
    ) -> Float[Array, "b n h w k"]:
        head, predict = heads
        regions = self._aligned(maps, boxes, self.keypoint_pool_size)
        batch, count = regions.shape[:2]
        x = predict(head(regions.reshape(-1, *regions.shape[2:])))
        return x.reshape(batch, count, *x.shape[1:])

    def _more_losses(
        self, seen: Seen, samples: Samples, targets: Targets, width: int, train: bool
    ) -> dict[str, Ratio]:
        points = learnable_keypoints(self, targets)

        def mean(heads: tuple[Callable[..., Array], ...], maps: Maps, learnt: Samples) -> Ratio:
            heatmaps = self._heatmaps(heads, maps, learnt.boxes)
            own = jnp.take_along_axis(points, learnt.matches[..., None, None], 1)
            cells = cells_of_keypoints(own, learnt.boxes, heatmaps.shape[2])
            valid = cells.valid & learnt.valid[..., None]
            return keypoint_loss(heatmaps, cells.place, valid)

        heads = self._keypoint_heads()
        return {"loss_keypoint": self._learn_objects(mean, heads, seen.maps, samples)}

    def _more_found(self, seen: Seen, found: dict[str, Array], train: bool) -> dict[str, Array]:
        heatmaps = self._heatmaps(self._keypoint_heads(), seen.maps, found["boxes"])
        flat = [x.reshape(-1, *x.shape[2:]) for x in (heatmaps, found["boxes"], found["valid"])]
        points = highest_places(*flat)
        likely = jnp.exp(heatmaps - heatmaps.max((2, 3), keepdims=True)).max(-1)
        return {
            "keypoints": points.reshape(*found["valid"].shape, *points.shape[1:]),
            "keypoint_heat": likely,
        }


VARIANTS = {
    "keypointrcnn_resnet50_fpn": Variant(
        KeypointRCNN,
        {"encoder": "resnet50"},
        "torchvision keypointrcnn_resnet50_fpn",
        (800, 800, 3),
        "He et al. 2017, https://arxiv.org/abs/1703.06870",
        classifier=(*CLASSIFIER, "roi_heads.keypoint_predictor.kps_score_lowres"),
        first="backbone.body.conv1",
        convert=convert,
    ),
}
