"""Activations with parameters."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.parameters import parameter


class PReLU(nn.Module):
    """He et al., Delving Deep into Rectifiers, 2015, https://arxiv.org/abs/1502.01852.

    A rectifier with a learnt slope for negative values, at first a quarter.

    Attributes:
      shared: whether all channels have one slope, rather than one each.
    """

    dtype: jnp.dtype | None = None
    shared: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        shape = (1,) if self.shared else x.shape[-1:]
        slope = parameter(self, "weight", nn.initializers.constant(0.25), shape, jnp.float32)
        x, slope = nn.dtypes.promote_dtype(x, slope, dtype=self.dtype)
        return jnp.where(x > 0, x, slope * x)
