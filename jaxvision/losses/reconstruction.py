"""What a network pays for what it says of pixels that were hidden from it."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxvision.losses.objective import Ratio, masked_ratio


def patch_statistics(
    patches: Float[Array, "b n d"],
) -> tuple[Float[Array, "b n 1"], Float[Array, "b n 1"]]:
    """The mean of a patch, and the square root of 1e-6 and its unbiased variance.

    He et al., Masked Autoencoders Are Scalable Vision Learners, 2021,
    https://arxiv.org/abs/2111.06377: a network learns more of pixels that are standardised by them.
    """
    mean = patches.mean(-1, keepdims=True)
    variance = patches.var(-1, keepdims=True, ddof=1)
    return mean, jnp.sqrt(variance + 1e-6)


def hidden_patch_error(
    found: Float[Array, "b n d"],
    wanted: Float[Array, "b n d"],
    hidden: Bool[Array, "b n"],
    valid: Bool[Array, " b"],
) -> Ratio:
    """The mean squared error over the values of hidden patches of valid images, not divided yet."""
    each = jnp.square(found - wanted).mean(-1)
    return masked_ratio(each, jnp.ones_like(each), hidden & valid[:, None])


def weighted_pixel_error(
    found: Float[Array, "b h w c"],
    wanted: Float[Array, "b h w c"],
    weights: Float[Array, "b h w"],
    valid: Bool[Array, " b"],
) -> Ratio:
    """The squared error of pixels, each so many times, over the number that are weighed at all.

    Pathak et al., Context Encoders: Feature Learning by Inpainting, 2016,
    https://arxiv.org/abs/1604.07379: the border of a region, which the network saw, counts more
    than once, and the mean is over the pixels of the region.
    """
    each = jnp.square(found - wanted).mean(-1) * weights
    counted = (weights > 0) & valid[:, None, None]
    return masked_ratio(each, jnp.ones_like(each), counted)
