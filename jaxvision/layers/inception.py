"""The Inception networks' building blocks, written as tables: convolutions, branches, pooling."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxvision.layers.conv_norm import ConvNormAct
from jaxvision.layers.convolution import Conv2d
from jaxvision.ops.windows import Pair

Pool = Callable[[Array], Array]


class Conv(NamedTuple):
    """A `ConvNormAct`: its name in the reference and its shape."""

    name: str
    features: int
    kernel: Pair = 1
    stride: int = 1
    padding: int | None = None


class Fork(NamedTuple):
    """Convolutions of the same map, their outputs side by side."""

    convs: tuple[Conv, ...]


Branch = tuple[Conv | Pool | Fork, ...]


class Block(NamedTuple):
    """An `InceptionBlock`: its name in the reference, its branches, how it is residual."""

    name: str
    branches: tuple[Branch, ...]
    scale: float | None = None
    act: bool = True


Layer = Conv | Pool | Block | str


class InceptionBlock(nn.Module):
    """Branches of the same map, their outputs side by side.

    Attributes:
      branches: each of convolutions and poolings; they are the block's children.
      conv: makes a `ConvNormAct`.
      scale: if there is one, a 1x1 convolution of the result, `conv2d`, is multiplied by it and
        added to the block's input.
      act: whether a ReLU follows that sum.
    """

    branches: Sequence[Branch]
    conv: Callable[..., ConvNormAct]
    scale: float | None = None
    act: bool = True
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b i j d"]:
        outputs = []
        for branch in self.branches:
            y = x
            for step in branch:
                y = self._apply(step, y, train)
            outputs.append(y)
        y = jnp.concatenate(outputs, -1)
        if self.scale is None:
            return y
        y = x + self.scale * Conv2d(x.shape[-1], 1, dtype=self.dtype, name="conv2d")(y)
        return nn.relu(y) if self.act else y

    def _apply(self, step: Conv | Pool | Fork, x: Array, train: bool) -> Array:
        if isinstance(step, Conv):
            return convolve(self.conv, step, x, train)
        if isinstance(step, Fork):
            return jnp.concatenate([convolve(self.conv, c, x, train) for c in step.convs], -1)
        return step(x)


def convolve(conv: Callable[..., ConvNormAct], layer: Conv, x: Array, train: bool) -> Array:
    """Applies a `Conv` as a child of the module that is being called."""
    made = conv(layer.features, layer.kernel, layer.stride, layer.padding, name=layer.name)
    return made(x, train)


def trunk(
    x: Float[Array, "b h w c"],
    layers: Sequence[Layer],
    conv: Callable[..., ConvNormAct],
    train: bool,
    remat: bool = False,
    dtype: Any = None,
) -> tuple[Float[Array, "b i j d"], dict[str, list[Float[Array, "b _ _ _"]]]]:
    """Applies a table of layers as children of the module that is being called.

    Args:
      x: the image.
      layers: a string in it marks the map at that place.
      conv: makes a `ConvNormAct`.
      train: whether batches are normalised by their own statistics.
      remat: recompute each block in the backward pass to save memory.
      dtype: what is computed in; None is what input and parameters promote to.

    Returns:
      The last map, and by each mark the maps that it marks.
    """
    block = nn.remat(InceptionBlock, static_argnums=(2,)) if remat else InceptionBlock
    marked: dict[str, list[Array]] = {}
    for layer in layers:
        if isinstance(layer, str):
            marked.setdefault(layer, []).append(x)
        elif isinstance(layer, Conv):
            x = convolve(conv, layer, x, train)
        elif isinstance(layer, Block):
            made = block(layer.branches, conv, layer.scale, layer.act, dtype, name=layer.name)
            x = made(x, train)
        else:
            x = layer(x)
    return x, marked
