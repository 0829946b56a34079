"""How one augmentation moves or joins a batch on the device: what annotations need to follow."""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from jaxvision.data.label_maps import ignored
from jaxvision.ops import boxes as box_ops
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

    @property
    def area_scale(self) -> Float[Array, " b"]:
        """By what the area of anything on the image is multiplied."""
        return geometry.area_scale(self.matrix)

    def classes(self, maps: Shaped[Array, "b h w"]) -> Shaped[Array, "b h w"]:
        """Maps of classes, moved."""
        return self.labels(maps, ignored(maps.dtype) if self.fill == -1 else self.fill)

    def boxes(self, boxes: Float[Array, "b n 4"]) -> Float[Array, "b n 4"]:
        """Hulls of the moved boxes (x0, y0, x1, y1), not clipped."""
        return geometry.warp_boxes(boxes, self.matrix)

    def points(self, points: Float[Array, "b n 2"]) -> Float[Array, "b n 2"]:
        """Points (x, y), moved."""
        return geometry.warp_points(points, self.matrix)


@dataclass(frozen=True)
class Joint:
    """How each image of a batch is made of several, its parts.

    The batch is a ring: part p of image i is made of image i - p. The loader has shuffled the
    batch, and on a mesh a shift exchanges only the images at the borders of the shards.

    Attributes:
      matrix: [b, p, 3, 3], pixels of each part's image to those of the output.
      window: [b, p, 4], the rectangle (x0, y0, x1, y1) of the output in which a part is seen; a
        part with an empty one is not used.
      images: joins images [b, h, w, c].
      least_area: an object stays if at least this share of its area is seen.
    """

    matrix: Float[Array, "b p 3 3"]
    window: Float[Array, "b p 4"]
    images: Callable[[Array], Array]
    least_area: float = 0.0

    @property
    def area_scale(self) -> Float[Array, "b p"]:
        """By what the area of anything on each part is multiplied."""
        return geometry.area_scale(self.matrix)

    def parts(self, rows: Shaped[Array, "b ..."]) -> Shaped[Array, "b p ..."]:
        """What belongs to the parts of each image."""
        count = self.window.shape[1]
        return jnp.stack([jnp.roll(rows, part, axis=0) for part in range(count)], axis=1)

    def boxes(
        self, boxes: Float[Array, "b p n 4"]
    ) -> tuple[Float[Array, "b p n 4"], Float[Array, "b p n"]]:
        """What is seen of the boxes of each part, on the output, and its share of their area."""
        count = boxes.shape[:2]
        matrices = self.matrix.reshape(-1, 3, 3)
        flat = geometry.warp_boxes(boxes.reshape(-1, *boxes.shape[2:]), matrices)
        moved, window = flat.reshape(boxes.shape), self.window[:, :, None]
        low = jnp.maximum(moved[..., :2], window[..., :2])
        high = jnp.minimum(moved[..., 2:], window[..., 2:])
        seen = jnp.concatenate([low, jnp.maximum(low, high)], axis=-1)
        whole = box_ops.area(moved)
        share = box_ops.area(seen) / jnp.where(whole > 0, whole, 1.0)
        return seen, share.reshape(*count, -1)
