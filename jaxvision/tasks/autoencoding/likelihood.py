"""What the output of a decoder says of an image's pixels."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxvision.losses import (
    bernoulli_nll,
    gaussian_nll,
    laplace_nll,
    logit_laplace_nll,
    unmap_pixels,
)
from jaxvision.tasks.inputs import Inputs

LOG_SCALE = "log_scale"  # beside the network's parameters
_SCALED = {"gaussian": gaussian_nll, "laplace": laplace_nll}


@dataclass(frozen=True)
class Likelihood:
    """The distribution of pixels from 0 to 1.

    Attributes:
      inputs: what images went through; Gaussians' and Laplace's means are in the range of the
        network's images.
      name: gaussian, laplace, bernoulli (outputs are logits of white) or logit_laplace (outputs are
        medians of logits, then logarithms of scales; see `losses.logit_laplace_nll`).
      scale: of gaussian the standard deviation, of laplace the mean absolute deviation.
      learnt: whether `scale` is only the first; then it is the parameter `log_scale`.
    """

    inputs: Inputs
    name: str = "gaussian"
    scale: float = 0.1
    learnt: bool = False

    def init(self) -> dict[str, jax.Array]:
        """Its parameters."""
        return {LOG_SCALE: jnp.log(jnp.float32(self.scale))} if self.learnt else {}

    def image(self, output: jax.Array) -> jax.Array:
        """The mean or median, float32 [b, h, w, c] from 0 to 1 where the decoder keeps to it."""
        output = output.astype(jnp.float32)
        if self.name == "logit_laplace":
            return unmap_pixels(jax.nn.sigmoid(jnp.split(output, 2, -1)[0]))
        return jax.nn.sigmoid(output) if self.name == "bernoulli" else self.inputs.pixels(output)

    def nll(self, output: jax.Array, pixels: jax.Array, params: Mapping[str, Any]) -> jax.Array:
        """Nats of each image, float32 [b].

        Args:
          output: of the decoder.
          pixels: from 0 to 1.
          params: with `log_scale`, if it is learnt.
        """
        output = output.astype(jnp.float32)
        if self.name == "logit_laplace":
            return logit_laplace_nll(output, pixels)
        if self.name == "bernoulli":
            return bernoulli_nll(output, pixels)
        log_scale = params[LOG_SCALE] if self.learnt else math.log(self.scale)
        return _SCALED[self.name](self.inputs.pixels(output), pixels, log_scale)

    def bits_per_dimension(self, nats: jax.Array, dimensions: int) -> jax.Array:
        """Of images of so many values, each one of 256; a Bernoulli's values are black and white.

        The others are densities of values from 0 to 1, of which each of the 256 has its part.
        """
        steps = 0.0 if self.name == "bernoulli" else math.log(256)
        return (nats / dimensions + steps) / math.log(2)
