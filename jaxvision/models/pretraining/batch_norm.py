"""Batch normalisation of heads: by the statistics of the batch, always, so none are kept."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.parameters import parameter


class BatchStandardised(nn.Module):
    """Batch normalisation without running statistics."""

    @nn.compact
    def __call__(self, x: Float[Array, "b c"]) -> Float[Array, "b c"]:
        shape = x.shape[-1:]
        scale = parameter(self, "scale", nn.initializers.ones, shape)
        bias = parameter(self, "bias", nn.initializers.zeros, shape)
        return scale * standardised(x) + bias


def standardised(x: Float[Array, "b c"]) -> Float[Array, "b c"]:
    """Each channel with mean 0 and variance 1 over the batch."""
    centred = x - x.mean(0)
    return centred * jax.lax.rsqrt(jnp.square(centred).mean(0) + 1e-5)
