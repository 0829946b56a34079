"""What the output of a decoder says of an image's pixels."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxvision.losses import bernoulli_nll, gaussian_nll
from jaxvision.tasks.inputs import Inputs

LOG_SCALE = "log_scale"  # beside the network's parameters


@dataclass(frozen=True)
class Likelihood:
    """The distribution of pixels from 0 to 1.

    Attributes:
      inputs: what images went through; a Gaussian's means are in the range of the network's images.
      bernoulli: whether outputs are logits of white; else they are a Gaussian's means.
      scale: standard deviation of the Gaussian.
      learnt: whether `scale` is only the first; then it is the parameter `log_scale`.
    """

    inputs: Inputs
    bernoulli: bool = False
    scale: float = 0.1
    learnt: bool = False

    def init(self) -> dict[str, jax.Array]:
        """Its parameters."""
        return {LOG_SCALE: jnp.log(jnp.float32(self.scale))} if self.learnt else {}

    def image(self, output: jax.Array) -> jax.Array:
        """The mean, float32 [b, h, w, c] from 0 to 1 where the decoder keeps to it."""
        output = output.astype(jnp.float32)
        return jax.nn.sigmoid(output) if self.bernoulli else self.inputs.pixels(output)

    def nll(self, output: jax.Array, pixels: jax.Array, params: Mapping[str, Any]) -> jax.Array:
        """Nats of each image, float32 [b].

        Args:
          output: of the decoder.
          pixels: from 0 to 1.
          params: with `log_scale`, if it is learnt.
        """
        output = output.astype(jnp.float32)
        if self.bernoulli:
            return bernoulli_nll(output, pixels)
        log_scale = params[LOG_SCALE] if self.learnt else math.log(self.scale)
        return gaussian_nll(self.inputs.pixels(output), pixels, log_scale)

    def bits_per_dimension(self, nats: jax.Array, dimensions: int) -> jax.Array:
        """Of images of so many values, each one of 256; a Bernoulli's values are black and white.

        A Gaussian is a density of values from 0 to 1, of which each of the 256 has its part.
        """
        steps = 0.0 if self.bernoulli else math.log(256)
        return (nats / dimensions + steps) / math.log(2)
