"""ResNets for small images: He et al., Deep Residual Learning for Image Recognition, 2015.

https://arxiv.org/abs/1512.03385, section 4.2. Reference: `resnet20()` ... of
akamaster/pytorch_resnet_cifar10, whose trained weights load by name. Depth is 6n + 2: a 3x3
convolution, three stages of n basic blocks with 16, 32 and 64 channels, global mean, linear layer.
"""

from functools import partial
from typing import ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.errors import UserError
from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.head import Head
from jaxvision.layers.normalization import BatchNorm
from jaxvision.models.variant import Variant


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut.

    Attributes:
      projection: option B of the paper, a 1x1 convolution where the shape changes; otherwise
        option A, which subsamples and pads with zero channels on both sides and has no weights.
    """

    features: int
    stride: int = 1
    projection: bool = False
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b i j d"]:
        def conv(stride: int, name: str, kernel: int = 3) -> Conv2d:
            return Conv2d(
                self.features, kernel, stride, use_bias=False, dtype=self.dtype, name=name
            )

        norm = partial(BatchNorm, dtype=self.dtype)
        y = nn.relu(norm(name="bn1")(conv(self.stride, "conv1")(x), train))
        y = norm(name="bn2")(conv(1, "conv2")(y), train)
        widen = self.features - x.shape[-1]
        if self.stride != 1 or widen:
            if self.projection:
                x = norm(name="shortcut_1")(conv(self.stride, "shortcut_0", kernel=1)(x), train)
            else:
                x = x[:, :: self.stride, :: self.stride]
                x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (widen // 2, widen - widen // 2)))
        return nn.relu(x + y)


class ResNetCifar(nn.Module):
    """The 6n + 2 layer network for 32x32 (or any other small) images.

    Attributes:
      depth: 8, 14, 20, 32, 44, 56, 110, 1202: any 6n + 2.
      width: channels of the first stage; doubled twice.
      projection: see `BasicBlock`.
      remat: recompute each block in the backward pass to save memory.
      features_only: return the maps of the three stages, of strides 1, 2 and 4.
    """

    feature_strides: ClassVar[tuple[int, ...]] = (1, 2, 4)

    num_classes: int = 10
    depth: int = 20
    width: int = 16
    projection: bool = False
    dropout: float = 0.0
    remat: bool = False
    features_only: bool = False
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b k"] | tuple[Float[Array, "b i j d"], ...]:
        if self.depth < 8 or self.depth % 6 != 2:
            near = max(8, 6 * round((self.depth - 2) / 6) + 2)
            raise UserError(f"depth={self.depth} is not 6n + 2; {near} is.")
        block = nn.remat(BasicBlock, static_argnums=(2,)) if self.remat else BasicBlock
        x = Conv2d(self.width, 3, use_bias=False, dtype=self.dtype, name="conv1")(image)
        x = nn.relu(BatchNorm(dtype=self.dtype, name="bn1")(x, train))
        features = []
        for stage in range(3):
            for index in range((self.depth - 2) // 6):
                stride = 2 if stage and index == 0 else 1
                x = block(
                    self.width * 2**stage,
                    stride,
                    self.projection,
                    self.dtype,
                    name=f"layer{stage + 1}_{index}",
                )(x, train)
            features.append(x)
        if self.features_only:
            return tuple(features)
        x = nn.Dropout(self.dropout, deterministic=not train)(x.mean((1, 2)))
        return Head(self.num_classes, dtype=self.dtype, name="linear")(x)


VARIANTS = {
    f"resnet{depth}_cifar": Variant(
        ResNetCifar,
        {"depth": depth},
        f"akamaster/pytorch_resnet_cifar10 resnet{depth}()",
        (32, 32, 3),
        "He et al. 2015, https://arxiv.org/abs/1512.03385",
        classifier=("linear",),
        first="conv1",
    )
    for depth in (8, 14, 20, 32, 44, 56, 110, 1202)
}
