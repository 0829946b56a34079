"""The last layer of a classifier."""

import flax.linen as nn
from jaxtyping import Array, Float


class Head(nn.Dense):
    """A linear classifier; with no classes (`features=0`) it hands its input through.

    So a network created with `num_classes=0` returns what its classifier would have seen, and has
    no parameters for it.
    """

    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b k"]:
        return super().__call__(x) if self.features else x
