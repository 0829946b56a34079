"""How a classifier ends: flattening, and its last layer."""

from jaxtyping import Array, Float

from jaxvision.layers.linear import Dense


def flatten(x: Float[Array, "b h w c"]) -> Float[Array, "b n"]:
    """One vector per image with the channels first, the order of PyTorch's linear layers."""
    return x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)


class Head(Dense):
    """A linear classifier; with no classes (`features=0`) it hands its input through.

    So a network created with `num_classes=0` returns its classifier's input, and has no parameters
    for it.
    """

    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b k"]:
        return super().__call__(x) if self.features else x
