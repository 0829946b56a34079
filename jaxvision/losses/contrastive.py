"""Contrast: which of many keys is a query's own. InfoNCE, van den Oord et al., Representation
Learning with Contrastive Predictive Coding, 2018, https://arxiv.org/abs/1807.03748."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float


def contrast(
    queries: Float[Array, "b d"], keys: Float[Array, "b d"], temperature: float
) -> tuple[Float[Array, " b"], Bool[Array, " b"]]:
    """(losses, whether a query's own key is the nearest): row for row, a query's key is its own.

    The loss is the cross-entropy of the own key among all, by cosine similarities over the
    temperature, times twice the temperature, as in MoCo v3 (Chen et al. 2021,
    https://arxiv.org/abs/2104.02057): so gradients are of one scale for all temperatures.

    Args:
      queries: of any length.
      keys: of any length.
      temperature: above 0.
    """
    queries, keys = (_unit(x.astype(jnp.float32)) for x in (queries, keys))
    similar = jnp.matmul(queries, keys.T, precision=lax.Precision.HIGHEST) / temperature
    own = jnp.diagonal(similar)
    losses = 2 * temperature * (jax.nn.logsumexp(similar, axis=1) - own)
    return losses, own >= similar.max(1)


def _unit(x: Array) -> Array:
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
