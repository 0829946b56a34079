"""Xception: Chollet, Xception: Deep Learning with Depthwise Separable Convolutions, 2017.

https://arxiv.org/abs/1610.02357. Reference: `timm` `legacy_xception`. Its weights come from Keras,
which pads the even maps that it pools at the bottom and the right alone; here as in timm all maps
are padded alike on all sides.
"""

from typing import ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.head import Head
from jaxvision.layers.images import check_size
from jaxvision.layers.normalization import BatchNorm
from jaxvision.models.variant import Variant
from jaxvision.ops.pooling import global_average_pool, max_pool2d

_SMALLEST = 7


class SeparableConv(nn.Module):
    """A depthwise 3x3 convolution, then a 1x1 one."""

    features: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
        width = x.shape[-1]
        conv = Conv2d(width, 3, groups=width, use_bias=False, dtype=self.dtype, name="conv1")
        return Conv2d(self.features, 1, use_bias=False, dtype=self.dtype, name="pointwise")(conv(x))


class Block(nn.Module):
    """ReLU, separable convolution and batch norm, two or three times, beside a shortcut.

    Attributes:
      widths: channels of the convolutions.
      stride: 2 pools the map, and the shortcut is a strided 1x1 convolution.
      first_relu: whether the block begins with a ReLU.
    """

    widths: tuple[int, ...]
    stride: int = 1
    first_relu: bool = True
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b i j d"]:
        y, index = x, 0
        for position, width in enumerate(self.widths):
            if self.first_relu or position:
                y, index = nn.relu(y), index + 1
            y = SeparableConv(width, self.dtype, name=f"rep_{index}")(y)
            y = BatchNorm(dtype=self.dtype, name=f"rep_{index + 1}")(y, train)
            index += 2
        if self.stride == 1:
            return x + y
        out = self.widths[-1]
        x = Conv2d(out, 1, self.stride, use_bias=False, dtype=self.dtype, name="skip")(x)
        x = BatchNorm(dtype=self.dtype, name="skipbn")(x, train)
        return x + max_pool2d(y, 3, self.stride, 1)


class Xception(nn.Module):
    """Entry flow, middle flow of equal blocks, exit flow, a mean and a linear layer.

    Attributes:
      middle: how many blocks of the middle flow.
      remat: recompute each block in the backward pass to save memory.
      features_only: return the maps of strides 2, 4, 8, 16 and 32, each after a ReLU.
      smp_maps: these maps are those of segmentation_models_pytorch's encoder: the first two
        convolutions are padded, and all maps but the first are before their ReLU.
    """

    feature_strides: ClassVar[tuple[int, ...]] = (2, 4, 8, 16, 32)

    num_classes: int = 1000
    middle: int = 8
    dropout: float = 0.0
    remat: bool = False
    features_only: bool = False
    smp_maps: bool = False
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b k"] | tuple[Float[Array, "b i j d"], ...]:
        check_size(image, _SMALLEST, "Xception")

        def norm(x: Array, index: int) -> Array:
            return BatchNorm(dtype=self.dtype, name=f"bn{index}")(x, train)

        def kept(x: Array) -> Array:
            return x if self.smp_maps else nn.relu(x)

        x, padding = image, 1 if self.smp_maps else 0
        for index, (width, stride) in enumerate(((32, 2), (64, 1)), start=1):
            conv = Conv2d(
                width, 3, stride, padding, use_bias=False, dtype=self.dtype, name=f"conv{index}"
            )
            x = nn.relu(norm(conv(x), index))
        features = [x]
        entry = ((128, 128), (256, 256), (728, 728))
        widths = (*entry, *[(728, 728, 728)] * self.middle, (728, 1024))
        block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        for index, shape in enumerate(widths, start=1):
            stride = 2 if len(shape) == 2 else 1  # only blocks of two convolutions are strided
            if stride == 2 and index > 1:
                features.append(kept(x))
            x = block(shape, stride, index > 1, self.dtype, name=f"block{index}")(x, train)
        x = nn.relu(norm(SeparableConv(1536, self.dtype, name="conv3")(x), 3))
        x = norm(SeparableConv(2048, self.dtype, name="conv4")(x), 4)
        if self.features_only:
            return (*features, kept(x))
        x = nn.relu(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(global_average_pool(x))
        return Head(self.num_classes, dtype=self.dtype, name="fc")(x)


VARIANTS = {
    "legacy_xception": Variant(
        Xception,
        {},
        "timm legacy_xception",
        (299, 299, 3),
        "Chollet 2017, https://arxiv.org/abs/1610.02357",
        classifier=("fc",),
        first="conv1",
    )
}
