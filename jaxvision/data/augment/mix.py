"""Mixing of images with each other or with nothing: mixup, CutMix, random erasing.

The partner of image i is image i - 1 of the batch: the loader has shuffled the batch already, and
on a mesh a shift exchanges only the images at the borders of the shards.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxvision.data.augment.color import Key, choose
from jaxvision.errors import UserError

Images = Float[Array, "b h w c"]
Labels = Float[Array, "b k"]


def mixup(key: Key, images: Images, labels: Labels, *, alpha: float = 0.2) -> tuple[Images, Labels]:
    """Blends each image, and its label, with its partner's.

    Zhang et al., 2018, https://arxiv.org/abs/1710.09412. The weight is drawn from
    Beta(alpha, alpha) for each image (the authors' code draws one for each batch); an `alpha` of 0
    is the identity.

    Args:
      key: random key.
      images: [b, h, w, c].
      labels: [b, k], each row a distribution over the classes (one-hot, for instance).
      alpha: at least 0; 0.1 to 0.4 for ImageNet.
    """
    if alpha == 0:
        return images, labels
    weight = jax.random.beta(key, alpha, alpha, images.shape[:1])
    images = _interpolate(weight[:, None, None, None], images)
    return images, _interpolate(weight[:, None], labels)


def _interpolate(weight: Array, values: Array) -> Array:
    return weight * values + (1 - weight) * jnp.roll(values, 1, axis=0)


def _rectangles(
    centre: Float[Array, "b 2"], size: Float[Array, "b 2"], height: int, width: int
) -> Bool[Array, "b h w"]:
    """Filled rectangles, cut off at the border; (y, x) in pixels."""
    low = jnp.round(centre - size / 2)
    high = jnp.round(centre + size / 2)
    y, x = jnp.arange(height)[None, :], jnp.arange(width)[None, :]
    rows = (y >= low[:, :1]) & (y < high[:, :1])
    columns = (x >= low[:, 1:]) & (x < high[:, 1:])
    return rows[:, :, None] & columns[:, None, :]


def cutmix(
    key: Key, images: Images, labels: Labels, *, alpha: float = 1.0
) -> tuple[Images, Labels]:
    """Pastes a rectangle of its partner into each image; labels are weighted by exact area.

    Yun et al., 2019, https://arxiv.org/abs/1905.04899. The area is 1 - Beta(alpha, alpha) of the
    image's, drawn for each image, less what falls outside; an `alpha` of 0 is the identity.
    Arguments as for `mixup`.
    """
    if alpha == 0:
        return images, labels
    batch, height, width, _ = images.shape
    of_area, of_centre = jax.random.split(key)
    weight = jax.random.beta(of_area, alpha, alpha, (batch, 1))
    extent = jnp.array([height, width], jnp.float32)
    centre = jax.random.uniform(of_centre, (batch, 2)) * extent
    pasted = _rectangles(centre, jnp.sqrt(1 - weight) * extent, height, width)
    images = jnp.where(pasted[..., None], jnp.roll(images, 1, axis=0), images)
    return images, _interpolate(1 - pasted.mean((1, 2), dtype=jnp.float32)[:, None], labels)


def mixup_or_cutmix(
    key: Key,
    images: Images,
    labels: Labels,
    *,
    mixup_alpha: float = 0.8,
    cutmix_alpha: float = 1.0,
    switch: float = 0.5,
) -> tuple[Images, Labels]:
    """Mixup, or with probability `switch` CutMix, for the whole batch, as DeiT and Swin train.

    Touvron et al., 2020, https://arxiv.org/abs/2012.12877. Arguments as for `mixup`.
    """
    of_coin, of_mix = jax.random.split(key)
    return jax.lax.cond(
        jax.random.bernoulli(of_coin, switch),
        lambda: cutmix(of_mix, images, labels, alpha=cutmix_alpha),
        lambda: mixup(of_mix, images, labels, alpha=mixup_alpha),
    )


def random_erasing(
    key: Key,
    images: Images,
    *,
    probability: float = 0.5,
    area: tuple[float, float] = (0.02, 0.33),
    aspect: tuple[float, float] = (0.3, 3.3),
    value: float | str = 0.0,
) -> Images:
    """Overwrites a random rectangle of some images.

    Zhong et al., 2020, https://arxiv.org/abs/1708.04896. As there, a rectangle that does not fit is
    drawn again; after ten attempts the image is left alone.

    Args:
      key: random key.
      images: [b, h, w, c].
      probability: of erasing at all, for each image.
      area: of the rectangle over the image's, uniform in this interval.
      aspect: height over width, log-uniform in this interval.
      value: what is written; "random" writes uniform noise, as the paper does.
    """
    batch, height, width, _ = images.shape
    coin, of_area, of_aspect, of_place, noise = jax.random.split(key, 5)
    attempts = (batch, 10)
    surface = jax.random.uniform(of_area, attempts, minval=area[0], maxval=area[1])
    low, high = math.log(aspect[0]), math.log(aspect[1])
    ratio = jnp.exp(jax.random.uniform(of_aspect, attempts, minval=low, maxval=high))
    sides = jnp.stack([jnp.sqrt(surface * ratio), jnp.sqrt(surface / ratio)], axis=-1)
    sides = jnp.round(sides * math.sqrt(height * width))
    fits = ((sides >= 1) & (sides < jnp.array([height, width]))).all(-1)
    size = jnp.take_along_axis(sides, fits.argmax(1)[:, None, None], axis=1)[:, 0]
    free = jnp.array([height, width]) - size
    corner = jnp.floor(jax.random.uniform(of_place, (batch, 2)) * (free + 1))
    erased = _rectangles(corner + size / 2, size, height, width)
    if isinstance(value, str):
        if value != "random":
            raise UserError(f"random_erasing: value is {value!r}; expected a number or 'random'.")
        content = jax.random.uniform(noise, images.shape)
    else:
        content = jnp.float32(value)
    chosen = jax.random.bernoulli(coin, probability, (batch,)) & fits.any(1)
    return choose(chosen, jnp.where(erased[..., None], content, images), images)
