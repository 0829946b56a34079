"""Images made of several of their batch, with their objects: mosaic, and mixup of boxes.

Every function is `(key, shape, *, ...) -> Joint`: it draws how each image is made; `shape` is
[b, h, w, c]. Boxes follow as `jaxvision.data.annotations.instances` says: moved, cut off at the
part's window, left out where too little of their area is seen, united up to the batch's limit.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxvision.data.augment.color import Key, choose, per_image
from jaxvision.data.motion import Joint
from jaxvision.ops import geometry

Shape = tuple[int, ...]


def mosaic(
    key: Key,
    shape: Shape,
    *,
    probability: float = 1.0,
    centre: tuple[float, float] = (0.25, 0.75),
    scale: tuple[float, float] = (0.5, 1.0),
    fill: float = 114 / 255,
    least_area: float = 0.1,
) -> Joint:
    """Four images around a random point, each with a corner of its own at it.

    Bochkovskiy et al., YOLOv4, 2020, https://arxiv.org/abs/2004.10934. The image itself is at the
    upper left; the three before it in the batch are at the upper right, lower left and lower right.

    Args:
      key: random key.
      shape: of the images.
      probability: of each image; others stay as they are.
      centre: the point, in parts of width and height, each uniform in this interval.
      scale: of each of the four, uniform in this interval.
      fill: the value of pixels that no image reaches.
      least_area: an object stays if at least this share of its area is seen.
    """
    batch, height, width = shape[:3]
    of_centre, of_scale, of_coin = jax.random.split(key, 3)
    size = jnp.array([width, height], jnp.float32)
    places = jax.random.uniform(of_centre, (batch, 2), minval=centre[0], maxval=centre[1])
    point = jnp.round(places * size)[:, None]  # whole pixels, [b, 1, 2]
    factor = jax.random.uniform(of_scale, (batch, 4), minval=scale[0], maxval=scale[1])
    after = jnp.array([[0, 0], [1, 0], [0, 1], [1, 1]], jnp.float32)  # right of, below the point
    chosen = jax.random.bernoulli(of_coin, probability, (batch,))
    alone = jnp.array([[0, 0, width, height], *[[0, 0, 0, 0]] * 3], jnp.float32)

    # The corner of an image that is at the point is the one on the other side of it.
    shift = point - factor[..., None] * (1 - after) * size
    matrix = jnp.tile(jnp.eye(3), (batch, 4, 1, 1))
    matrix = matrix.at[..., 0, 0].set(factor).at[..., 1, 1].set(factor).at[..., :2, 2].set(shift)
    window = jnp.concatenate([after * point, jnp.where(after > 0, size, point)], axis=-1)
    matrix = jnp.where(chosen[:, None, None, None], matrix, jnp.eye(3))
    window = jnp.where(chosen[:, None, None], window, alone)

    def join(images: Array) -> Array:
        x, y = jnp.arange(width)[None, None, :], jnp.arange(height)[None, :, None]
        right, below = x >= point[..., :1], y >= point[..., 1:]
        part = jnp.where(chosen[:, None, None], right + 2 * below, 0)
        parts = jnp.stack([jnp.roll(images, p, axis=0) for p in range(4)], axis=1)
        return geometry.warp_parts(parts, matrix, part, fill)

    return Joint(matrix, window, join, least_area)


def mixup_boxes(key: Key, shape: Shape, *, probability: float = 1.0, alpha: float = 1.5) -> Joint:
    """The weighted mean of each image and the one before it in the batch, with the boxes of both.

    Zhang et al., Bag of Freebies for Training Object Detection Neural Networks, 2019,
    https://arxiv.org/abs/1902.04103. The weight is drawn from Beta(alpha, alpha) for each image;
    the boxes of both count fully.

    Args:
      key: random key.
      shape: of the images.
      probability: of each image; others stay as they are.
      alpha: above 0; 1.5 in the paper.
    """
    batch, height, width = shape[:3]
    of_weight, of_coin = jax.random.split(key)
    chosen = jax.random.bernoulli(of_coin, probability, (batch,))
    weight = jax.random.beta(of_weight, alpha, alpha, (batch,))
    whole = jnp.array([0, 0, width, height], jnp.float32)
    other = jnp.where(chosen[:, None], whole, 0.0)
    window = jnp.stack([jnp.broadcast_to(whole, other.shape), other], axis=1)

    def join(images: Array) -> Array:
        part = per_image(weight)
        mixed = part * images + (1 - part) * jnp.roll(images, 1, axis=0)
        return choose(chosen, mixed, images)

    return Joint(jnp.tile(jnp.eye(3), (batch, 2, 1, 1)), window, join)


JOINTS: dict[str, Callable[..., Joint]] = {"mixup_boxes": mixup_boxes, "mosaic": mosaic}
