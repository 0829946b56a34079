"""Flips, affine warps and crops, which masks, boxes and key points follow.

Every function is `(key, shape, *, ...) -> Motion`: it draws how each image moves; `shape` is
[b, h, w, c]. What lies on the images follows by the motion's methods: pixels of labels by nearest
neighbour, boxes (x0, y0, x1, y1) and points (x, y) by its matrices.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxvision.data.augment.color import Key
from jaxvision.data.motion import Motion
from jaxvision.ops import geometry

Shape = tuple[int, ...]
Order = Sequence[int] | None


def flip_horizontal(
    key: Key, shape: Shape, *, probability: float = 0.5, keypoint_order: Order = None
) -> Motion:
    """Mirrors each image left to right with the given probability.

    Args:
      key: random key.
      shape: of the images.
      probability: of each image.
      keypoint_order: the permutation of key points that exchanges left and right ones.
    """
    return _flip(key, shape, 2, probability, keypoint_order)


def flip_vertical(
    key: Key, shape: Shape, *, probability: float = 0.5, keypoint_order: Order = None
) -> Motion:
    """Mirrors each image top to bottom; arguments as for `flip_horizontal`."""
    return _flip(key, shape, 1, probability, keypoint_order)


def _flip(key: Key, shape: Shape, axis: int, probability: float, order: Order) -> Motion:
    chosen = jax.random.bernoulli(key, probability, shape[:1])

    def flip(array: Array, fill: int = 0) -> Array:
        picked = chosen.reshape(-1, *(1,) * (array.ndim - 1))
        return jnp.where(picked, jnp.flip(array, axis), array)

    place, length = (0, shape[2]) if axis == 2 else (1, shape[1])
    mirror = jnp.eye(3).at[place, place].set(-1.0).at[place, 2].set(length)
    matrix = jnp.where(chosen[:, None, None], mirror, jnp.eye(3))
    order = None if order is None else tuple(order)
    return Motion(matrix, flip, flip, mirrored=chosen, keypoint_order=order)


def random_affine(
    key: Key,
    shape: Shape,
    *,
    degrees: float = 0.0,
    scale: tuple[float, float] = (1.0, 1.0),
    translate: tuple[float, float] = (0.0, 0.0),
    shear: float = 0.0,
    fill: float = 0.0,
    mask_fill: int = -1,
) -> Motion:
    """Rotates, scales, shears and moves each image about its centre, by bilinear interpolation.

    Args:
      key: random key.
      shape: of the images.
      degrees: rotation, uniform in [-degrees, degrees].
      scale: factor, uniform in this interval; above 1 enlarges.
      translate: (x, y), uniform in [-t, t] times the image's (width, height).
      shear: shear along x, uniform in [-shear, shear] degrees.
      fill: the value of image pixels that come from outside.
      mask_fill: the value of such pixels of class maps (-1: of no class).
    """
    height, width = shape[1:3]
    keys = jax.random.split(key, 5)

    def uniform(index: int, low: float, high: float) -> Array:
        return jax.random.uniform(keys[index], shape[:1], minval=low, maxval=high)

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
    return Motion(
        matrix,
        lambda images: geometry.warp_images(images, matrix, fill),
        lambda labels, outside: geometry.warp_masks(labels, matrix, outside),
        fill=mask_fill,
    )


def random_crop(
    key: Key,
    shape: Shape,
    *,
    padding: int = 4,
    fill: float = 0.0,
    mask_fill: int = -1,
) -> Motion:
    """Pads each side by `padding` pixels and cuts out a window of the original size.

    The augmentation of CIFAR: He et al., 2016, section 4.2, https://arxiv.org/abs/1512.03385.
    """
    batch, height, width = shape[:3]
    offset = jax.random.randint(key, (batch, 2), 0, 2 * padding + 1)  # (y, x)

    def crop(array: Array, value: float | int) -> Array:
        border = [(0, 0), (padding, padding), (padding, padding)] + [(0, 0)] * (array.ndim - 3)
        padded = jnp.pad(array, border, constant_values=jnp.asarray(value, array.dtype))

        def window(one: Array, start: Array) -> Array:
            rest = (0,) * (one.ndim - 2)
            sizes = (height, width, *one.shape[2:])
            return jax.lax.dynamic_slice(one, (start[0], start[1], *rest), sizes)

        return jax.vmap(window)(padded, offset)

    shift = (padding - offset[:, ::-1]).astype(jnp.float32)
    matrix = jnp.tile(jnp.eye(3), (batch, 1, 1)).at[:, :2, 2].set(shift)
    return Motion(matrix, lambda images: crop(images, fill), crop, fill=mask_fill)


DRAWS: dict[str, Callable[..., Motion]] = {
    "flip_horizontal": flip_horizontal,
    "flip_vertical": flip_vertical,
    "random_affine": random_affine,
    "random_crop": random_crop,
}
