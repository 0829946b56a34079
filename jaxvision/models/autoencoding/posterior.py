"""What the encoder of a variational autoencoder says of an image."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


class Posterior(NamedTuple):
    """Independent Gaussians, one for each latent variable.

    Attributes:
      mean: of each.
      log_variance: the logarithm of each variance.
    """

    mean: Float[Array, "b *size k"]
    log_variance: Float[Array, "b *size k"]

    def sample(self, key: PRNGKeyArray) -> Float[Array, "b *size k"]:
        """One draw of each, differentiable in mean and variance.

        Kingma and Welling, Auto-Encoding Variational Bayes, 2013, https://arxiv.org/abs/1312.6114,
        section 2.4.
        """
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return self.mean + jnp.exp(self.log_variance / 2) * noise
