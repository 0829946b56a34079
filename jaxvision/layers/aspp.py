"""Atrous spatial pyramid pooling: Chen et al., Rethinking Atrous Convolution, 2017.

https://arxiv.org/abs/1706.05587, with the separable convolutions of DeepLab v3+ (Chen et al. 2018,
https://arxiv.org/abs/1802.02611) if wanted. Named as in torchvision and
segmentation_models_pytorch.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxvision.layers.conv_norm import conv_norm_relu
from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.normalization import BatchNorm


class SeparableConv2d(nn.Module):
    """A depthwise convolution without bias, then a 1x1 convolution.

    Attributes:
      features: channels of the output.
      kernel_size, dilation: of the depthwise convolution.
    """

    features: int
    kernel_size: int = 3
    dilation: int = 1
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
        channels = x.shape[-1]
        x = Conv2d(
            channels,
            self.kernel_size,
            dilation=self.dilation,
            groups=channels,
            use_bias=False,
            dtype=self.dtype,
            name="0",
        )(x)
        return Conv2d(self.features, 1, use_bias=False, dtype=self.dtype, name="1")(x)


class ASPP(nn.Module):
    """A 1x1 convolution, dilated 3x3 ones and the image's mean side by side, then projected.

    Attributes:
      rates: dilations of the 3x3 convolutions.
      width: channels of each branch and of the output.
      separable: whether the dilated convolutions are depthwise separable.
    """

    rates: tuple[int, ...] = (12, 24, 36)
    width: int = 256
    separable: bool = False
    dropout: float = 0.5
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w d"]:
        branches = [conv_norm_relu(self, self.width, 1, "convs_0_0", "convs_0_1", x, train)]
        for index, rate in enumerate(self.rates, start=1):
            names = f"convs_{index}_0", f"convs_{index}_1"
            if self.separable:
                y = SeparableConv2d(self.width, 3, rate, dtype=self.dtype, name=names[0])(x)
                y = nn.relu(BatchNorm(dtype=self.dtype, name=names[1])(y, train))
            else:
                y = conv_norm_relu(self, self.width, 3, *names, x, train, rate)
            branches.append(y)
        last = len(self.rates) + 1
        mean = jnp.mean(x, axis=(1, 2), keepdims=True)
        names = f"convs_{last}_1", f"convs_{last}_2"
        mean = conv_norm_relu(self, self.width, 1, *names, mean, train)
        branches.append(jnp.broadcast_to(mean, branches[0].shape))
        x = jnp.concatenate(branches, axis=-1)
        x = conv_norm_relu(self, self.width, 1, "project_0", "project_1", x, train)
        return nn.Dropout(self.dropout, deterministic=not train)(x)
