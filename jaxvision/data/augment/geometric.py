"""Flips, affine warps and crops, which masks and boxes follow.

Every function is `(key, images, masks=None, boxes=None, *, ...) -> (images, masks, boxes)`; what is
not given comes back as None. `masks` are [b, h, w] or [b, h, w, n], of class or instance numbers,
and follow by nearest neighbour. `boxes` are (x0, y0, x1, y1) in pixels and come back unclipped:
`jaxvision.ops.geometry.clip_boxes` cuts them off. A point follows as a box of no size.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from jaxvision.data.augment.color import Key
from jaxvision.ops import geometry

Images = Float[Array, "b h w c"]
Masks = Shaped[Array, "b h w *n"] | None
Boxes = Float[Array, "b m 4"] | None


def _flip(key: Key, axis: int, probability: float, images: Images, masks: Masks, boxes: Boxes):
    chosen = jax.random.bernoulli(key, probability, images.shape[:1])

    def pick(flipped: Array, original: Array) -> Array:
        return jnp.where(chosen.reshape(-1, *(1,) * (original.ndim - 1)), flipped, original)

    images_out = pick(jnp.flip(images, axis), images)
    masks = None if masks is None else pick(jnp.flip(masks, axis), masks)
    if boxes is not None:
        length = {"height" if axis == 1 else "width": images.shape[axis]}
        boxes = pick(geometry.flip_boxes(boxes, **length), boxes)
    return images_out, masks, boxes


def flip_horizontal(
    key: Key,
    images: Images,
    masks: Masks = None,
    boxes: Boxes = None,
    *,
    probability: float = 0.5,
) -> tuple[Images, Masks, Boxes]:
    """Mirrors each image left to right with the given probability."""
    return _flip(key, 2, probability, images, masks, boxes)


def flip_vertical(
    key: Key,
    images: Images,
    masks: Masks = None,
    boxes: Boxes = None,
    *,
    probability: float = 0.5,
) -> tuple[Images, Masks, Boxes]:
    """Mirrors each image top to bottom with the given probability."""
    return _flip(key, 1, probability, images, masks, boxes)


def random_affine(
    key: Key,
    images: Images,
    masks: Masks = None,
    boxes: Boxes = None,
    *,
    degrees: float = 0.0,
    scale: tuple[float, float] = (1.0, 1.0),
    translate: tuple[float, float] = (0.0, 0.0),
    shear: float = 0.0,
    fill: float = 0.0,
    mask_fill: int = 255,
) -> tuple[Images, Masks, Boxes]:
    """Rotates, scales, shears and moves each image about its centre.

    Args:
      key: random key.
      images: 0 to 1; interpolated bilinearly.
      masks: nearest neighbour.
      boxes: become the axis-aligned hulls of the moved boxes.
      degrees: rotation, uniform in [-degrees, degrees].
      scale: factor, uniform in this interval; above 1 enlarges.
      translate: (x, y), uniform in [-t, t] times the image's (width, height).
      shear: shear along x, uniform in [-shear, shear] degrees.
      fill: the value of image pixels that come from outside.
      mask_fill: the value of such mask pixels (255 is "ignore").
    """
    height, width = images.shape[1:3]
    keys = jax.random.split(key, 5)

    def uniform(index: int, low: float, high: float) -> Array:
        return jax.random.uniform(keys[index], images.shape[:1], minval=low, maxval=high)

    matrix = geometry.affine_matrix(
        (width / 2, height / 2),
        degrees=uniform(0, -degrees, degrees),
        scale=uniform(1, *scale),
        translation=(
            uniform(2, -translate[0], translate[0]) * width,
            uniform(3, -translate[1], translate[1]) * height,
        ),
        shear=(uniform(4, -shear, shear), 0.0),
    )
    images = geometry.warp_images(images, matrix, fill)
    masks = None if masks is None else geometry.warp_masks(masks, matrix, mask_fill)
    boxes = None if boxes is None else geometry.warp_boxes(boxes, matrix)
    return images, masks, boxes


def random_crop(
    key: Key,
    images: Images,
    masks: Masks = None,
    boxes: Boxes = None,
    *,
    padding: int = 4,
    fill: float = 0.0,
    mask_fill: int = 255,
) -> tuple[Images, Masks, Boxes]:
    """Pads each side by `padding` pixels and cuts out a window of the original size.

    The augmentation of CIFAR: He et al., 2016, section 4.2, https://arxiv.org/abs/1512.03385.
    """
    height, width = images.shape[1:3]
    offset = jax.random.randint(key, (images.shape[0], 2), 0, 2 * padding + 1)  # (y, x)

    def crop(array: Array, value: float | int) -> Array:
        border = [(0, 0), (padding, padding), (padding, padding)] + [(0, 0)] * (array.ndim - 3)
        padded = jnp.pad(array, border, constant_values=jnp.asarray(value, array.dtype))

        def window(one: Array, start: Array) -> Array:
            rest = (0,) * (one.ndim - 2)
            sizes = (height, width, *one.shape[2:])
            return jax.lax.dynamic_slice(one, (start[0], start[1], *rest), sizes)

        return jax.vmap(window)(padded, offset)

    if boxes is not None:
        moved = (padding - offset[:, ::-1]).astype(boxes.dtype)
        boxes = boxes + jnp.concatenate([moved, moved], axis=-1)[:, None, :]
    return crop(images, fill), None if masks is None else crop(masks, mask_fill), boxes
