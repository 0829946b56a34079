"""A loss as a sum of means, which micro-batches can add up exactly."""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped


class Ratio(NamedTuple):
    """A weighted mean that has not been divided yet.

    Attributes:
      total: sum of what is averaged, float32 [].
      weight: sum of the weights, float32 []; where it is 0 the mean is 0.
    """

    total: Float[Array, ""]
    weight: Float[Array, ""]

    @property
    def value(self) -> Float[Array, ""]:
        """The mean."""
        return self.total / jnp.where(self.weight == 0, 1.0, self.weight)

    def scaled(self, factor: Float[Array, ""] | float) -> "Ratio":
        """The mean times a factor, with the same weight."""
        return Ratio(factor * self.total, self.weight)


class Objective(NamedTuple):
    """What a training step lowers: the sum of the means' values, and a penalty.

    The gradient of a batch that is seen as micro-batches is that of the whole batch: each mean's
    totals are added up, and divided once by the weight of all of them. What is one number of a
    whole batch (Dice, Lovász) has the weight 1, and is averaged over the micro-batches.

    Attributes:
      means: by name.
      penalty: on parameters, float32 []; it is not reported as loss.
    """

    means: Mapping[str, Ratio]
    penalty: Float[Array, ""] | float = 0.0

    @property
    def loss(self) -> Float[Array, ""]:
        """The sum of the means."""
        return sum((mean.value for mean in self.means.values()), jnp.zeros(()))

    @property
    def value(self) -> Float[Array, ""]:
        """The loss and the penalty together."""
        return self.loss + self.penalty


def masked_ratio(
    values: Float[Array, "*b"], weights: Float[Array, "*b"], mask: Shaped[Array, "*b"]
) -> Ratio:
    """`sum(values) / sum(weights)` over the entries where `mask`, not divided yet."""
    total = jnp.sum(jnp.where(mask, values, 0.0))
    return Ratio(total, jnp.sum(jnp.where(mask, weights, 0.0)))


def masked_mean(
    values: Float[Array, "*b"], weights: Float[Array, "*b"], mask: Shaped[Array, "*b"]
) -> Float[Array, ""]:
    """`sum(values) / sum(weights)` over the entries where `mask`; 0 where there are none."""
    return masked_ratio(values, weights, mask).value
