"""Squeeze-and-excitation: Hu et al. 2017, https://arxiv.org/abs/1709.01507."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxvision.layers.convolution import Conv2d


class SqueezeExcite(nn.Module):
    """Scales each channel by what two 1x1 convolutions make of the channels' means.

    Attributes:
      hidden: channels between the two.
      gate: what makes scales of the second's output.
      act: the activation after the first.
      names: of the two.
      dtype: what is computed in; None is what input and parameters promote to.
    """

    hidden: int
    gate: Callable[[Array], Array] = nn.sigmoid
    act: Callable[[Array], Array] = nn.relu
    names: tuple[str, str] = ("fc1", "fc2")
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        mean = jnp.mean(x, (1, 2), keepdims=True)
        first, second = self.names
        y = self.act(Conv2d(self.hidden, 1, dtype=self.dtype, name=first)(mean))
        return x * self.gate(Conv2d(x.shape[-1], 1, dtype=self.dtype, name=second)(y))
