"""What an autoencoder pays for an image, in nats: for its pixels, and for its code.

Kingma and Welling, Auto-Encoding Variational Bayes, 2013, https://arxiv.org/abs/1312.6114. For
discrete codes: Ramesh et al., Zero-Shot Text-to-Image Generation, 2021,
https://arxiv.org/abs/2102.12092.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxvision.losses.objective import Ratio

_MARGIN = 0.1  # of pixels that the logit-Laplace distribution says something of


def bernoulli_nll(
    logits: Float[Array, " b *size"], pixels: Float[Array, " b *size"]
) -> Float[Array, " b"]:
    """The binary cross-entropy of each image, added up over its pixels.

    Args:
      logits: of each pixel's being 1.
      pixels: from 0 to 1; of one between, the mean over black and white pixels of that mean.
    """
    each = jax.nn.softplus(logits) - logits * pixels
    return each.reshape(each.shape[0], -1).sum(-1)


def gaussian_nll(
    mean: Float[Array, " b *size"],
    pixels: Float[Array, " b *size"],
    log_scale: Float[Array, ""] | float = 0.0,
) -> Float[Array, " b"]:
    """Minus the logarithm of each image's density, under one standard deviation for all pixels.

    Args:
      mean: of each pixel.
      pixels: in the same units.
      log_scale: logarithm of the standard deviation.
    """
    each = jnp.square((pixels - mean) * jnp.exp(-log_scale)) / 2
    each = each + log_scale + math.log(2 * math.pi) / 2
    return each.reshape(each.shape[0], -1).sum(-1)


def laplace_nll(
    median: Float[Array, " b *size"],
    pixels: Float[Array, " b *size"],
    log_scale: Float[Array, ""] | float = 0.0,
) -> Float[Array, " b"]:
    """Minus the logarithm of each image's density, under one scale for all pixels.

    Args:
      median: of each pixel.
      pixels: in the same units.
      log_scale: logarithm of the mean absolute deviation.
    """
    each = jnp.abs(pixels - median) * jnp.exp(-log_scale) + log_scale + math.log(2)
    return each.reshape(each.shape[0], -1).sum(-1)


def map_pixels(pixels: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """From 0..1 to 0.1..0.9 (Ramesh et al. 2021, appendix A.3)."""
    return (1 - 2 * _MARGIN) * pixels + _MARGIN


def unmap_pixels(mapped: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """The inverse of `map_pixels`, kept from 0 to 1."""
    return jnp.clip((mapped - _MARGIN) / (1 - 2 * _MARGIN), 0, 1)


def logit_laplace_nll(
    output: Float[Array, "b h w d"], pixels: Float[Array, "b h w c"]
) -> Float[Array, " b"]:
    """Minus the logarithm of each image's density, where logits of `map_pixels` have a Laplace one.

    Ramesh et al. 2021, appendix A.3. The density is of the pixels from 0 to 1, not of the mapped.

    Args:
      output: d = 2 c channels, medians of the logits and then logarithms of their scales.
      pixels: from 0 to 1.
    """
    median, log_scale = jnp.split(output, 2, -1)
    mapped = map_pixels(pixels)
    logits = jnp.log(mapped) - jnp.log1p(-mapped)
    each = jnp.abs(logits - median) * jnp.exp(-log_scale) + log_scale
    # Two of the density's scale; what logit and mapping stretch pixels by.
    each += math.log(2 / (1 - 2 * _MARGIN)) + jnp.log(mapped * (1 - mapped))
    return each.reshape(each.shape[0], -1).sum(-1)


def uniform_kl(logits: Float[Array, " b *size k"]) -> Float[Array, " b"]:
    """Divergence of each place's distribution from the one that is alike, added up over places."""
    log_p = jax.nn.log_softmax(logits)
    each = jnp.sum(jnp.exp(log_p) * log_p, -1) + math.log(logits.shape[-1])
    return each.reshape(each.shape[0], -1).sum(-1)


def gaussian_kl(
    mean: Float[Array, " b *size k"], log_variance: Float[Array, " b *size k"]
) -> Float[Array, "b k"]:
    """Divergence of independent Gaussians from standard normal ones, added up over places.

    Args:
      mean, log_variance: of vectors [b, k], or of a vector at each place of a map.
    """
    each = (jnp.square(mean) + jnp.exp(log_variance) - 1 - log_variance) / 2
    return each.reshape(each.shape[0], -1, each.shape[-1]).sum(1)


def free_nats(kl: Float[Array, "b k"], mask: Bool[Array, " b"], free: float) -> Ratio:
    """The divergence, of which `free` nats a latent variable cost no less than they do in use.

    `sum over k of max(free, mean over the batch)`: below it nothing is gained by making a latent
    variable say less. Kingma et al., Improving Variational Inference with Inverse Autoregressive
    Flow, 2016, https://arxiv.org/abs/1606.04934, appendix C.8, "free bits".

    Args:
      kl: of each image and latent variable.
      mask: which images count.
      free: nats.
    """
    count = jnp.maximum(mask.sum(), 1)
    means = jnp.where(mask[:, None], kl, 0.0).sum(0) / count
    return Ratio(jnp.maximum(means, free).sum(), jnp.ones(()))


def squared_distance(
    a: Float[Array, " b *size"], b: Float[Array, " b *size"]
) -> Float[Array, " b"]:
    """Of each image, added up over all values."""
    each = jnp.square(a - b)
    return each.reshape(each.shape[0], -1).sum(-1)
