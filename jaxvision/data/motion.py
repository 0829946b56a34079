"""How one augmentation moves a batch on the device: what annotations need to follow it."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Array, Bool, Float, Shaped

from jaxvision.data.label_maps import ignored
from jaxvision.ops import geometry


@dataclass(frozen=True)
class Motion:
    """A geometric change that has been drawn for each image of a batch.

    Attributes:
      matrix: [b, 3, 3], input to output pixels (see `jaxvision.ops.geometry`).
      images: moves images [b, h, w, c].
      labels: moves maps [b, h, w, ...] of labels by nearest neighbour; the second argument is the
        value of what comes from outside.
      fill: that value for maps of classes; -1: the one that stands for no class.
      mirrored: [b], which images had left and right exchanged; None: none can have been.
      keypoint_order: the permutation of key points that exchanges left and right ones.
    """

    matrix: Float[Array, "b 3 3"]
    images: Callable[[Array], Array]
    labels: Callable[[Array, int], Array]
    fill: int = -1
    mirrored: Bool[Array, " b"] | None = None
    keypoint_order: tuple[int, ...] | None = None

    def classes(self, maps: Shaped[Array, "b h w"]) -> Shaped[Array, "b h w"]:
        """Maps of classes, moved."""
        return self.labels(maps, ignored(maps.dtype) if self.fill == -1 else self.fill)

    def boxes(self, boxes: Float[Array, "b n 4"]) -> Float[Array, "b n 4"]:
        """Hulls of the moved boxes (x0, y0, x1, y1), not clipped."""
        return geometry.warp_boxes(boxes, self.matrix)

    def points(self, points: Float[Array, "b n 2"]) -> Float[Array, "b n 2"]:
        """Points (x, y), moved."""
        return geometry.warp_points(points, self.matrix)
