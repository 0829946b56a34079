"""ShuffleNets: grouped 1x1 convolutions, or half the channels, mixed by shuffling channels.

V1: Zhang et al., ShuffleNet: An Extremely Efficient CNN for Mobile Devices, 2018,
https://arxiv.org/abs/1707.01083. Reference: `pytorchcv` `shufflenet_g3_w1` .... V2: Ma et al.,
ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design, 2018,
https://arxiv.org/abs/1807.11164. Reference: `torchvision.models.shufflenet_v2_x1_0` ....
"""

from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.conv_norm import ConvNormAct
from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.head import Head
from jaxvision.layers.normalization import BatchNorm
from jaxvision.layers.pyramid import doubled
from jaxvision.models.variant import Variant
from jaxvision.ops.pooling import avg_pool2d, global_average_pool, max_pool2d

_DEPTHS = (4, 8, 4)


def channel_shuffle(x: Float[Array, "b h w c"], groups: int) -> Float[Array, "b h w c"]:
    """The first channel of each group, then the second of each, and so on."""
    split = x.reshape(*x.shape[:3], groups, x.shape[3] // groups)
    return split.swapaxes(3, 4).reshape(x.shape)


class ShuffleUnit(nn.Module):
    """Figure 2 of the first paper: grouped 1x1, shuffle, depthwise 3x3, grouped 1x1, a shortcut.

    Attributes:
      features: channels of the output.
      groups: of the 1x1 convolutions.
      grouped_first: whether the first is grouped too.
      downsample: whether the map is halved; the shortcut's mean is then put beside the result.
    """

    features: int
    groups: int
    grouped_first: bool = True
    downsample: bool = False
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b i j d"]:
        conv = partial(Conv2d, use_bias=False, dtype=self.dtype)

        def norm(x: Array, name: str) -> Array:
            return BatchNorm(dtype=self.dtype, name=name)(x, train)

        width, out = self.features // 4, self.features
        if self.downsample:
            out -= x.shape[-1]
        groups = self.groups if self.grouped_first else 1
        y = conv(width, 1, groups=groups, name="compress_conv1")(x)
        y = channel_shuffle(nn.relu(norm(y, "compress_bn1")), self.groups)
        y = conv(width, 3, 2 if self.downsample else 1, groups=width, name="dw_conv2")(y)
        y = conv(out, 1, groups=self.groups, name="expand_conv3")(norm(y, "dw_bn2"))
        y = norm(y, "expand_bn3")
        if self.downsample:
            return nn.relu(jnp.concatenate([y, avg_pool2d(x, 3, 2, 1)], -1))
        return nn.relu(x + y)


class ShuffleNetV1(nn.Module):
    """A strided convolution, max pooling, three stages of units, a mean and a linear layer.

    Attributes:
      widths: channels of the stages.
      groups: see `ShuffleUnit`.
      depths: units of the stages; the first of each halves the map.
      remat: recompute each unit in the backward pass to save memory.
      features_only: return the maps of strides 2, 4, 8, 16 and 32.
    """

    num_classes: int = 1000
    widths: Sequence[int] = (240, 480, 960)
    groups: int = 3
    depths: Sequence[int] = _DEPTHS
    dropout: float = 0.0
    remat: bool = False
    features_only: bool = False
    dtype: jnp.dtype | None = None

    @property
    def feature_strides(self) -> tuple[int, ...]:
        return doubled(len(self.depths) + 2, first=2)

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b k"] | tuple[Float[Array, "b i j d"], ...]:
        stem = ConvNormAct(24, 3, 2, dtype=self.dtype, name="features.init_block")
        features = [stem(image, train)]
        x = max_pool2d(features[0], 3, 2, 1)
        unit = nn.remat(ShuffleUnit, static_argnums=(2,)) if self.remat else ShuffleUnit
        for stage, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True), start=1):
            features.append(x)
            for index in range(1, depth + 1):
                x = unit(
                    width,
                    self.groups,
                    grouped_first=stage > 1 or index > 1,
                    downsample=index == 1,
                    dtype=self.dtype,
                    name=f"features.stage{stage}.unit{index}",
                )(x, train)
        if self.features_only:
            return (*features, x)
        x = nn.Dropout(self.dropout, deterministic=not train)(global_average_pool(x))
        return Head(self.num_classes, dtype=self.dtype, name="output")(x)


class SplitUnit(nn.Module):
    """Figure 3 of the second paper: 1x1, depthwise 3x3, 1x1 of half of the channels; shuffle.

    Attributes:
      features: channels of the output.
      downsample: whether the map is halved; both branches then see all channels, and the other one
        is a depthwise 3x3 and a 1x1 convolution.
    """

    features: int
    downsample: bool = False
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b i j d"]:
        width, stride = self.features // 2, 2 if self.downsample else 1

        def pointwise(x: Array, branch: str, index: int) -> Array:
            conv = Conv2d(width, 1, use_bias=False, dtype=self.dtype, name=f"{branch}_{index}")
            return nn.relu(
                BatchNorm(dtype=self.dtype, name=f"{branch}_{index + 1}")(conv(x), train)
            )

        def depthwise(x: Array, branch: str, index: int) -> Array:
            channels, name = x.shape[-1], f"{branch}_{index}"
            conv = Conv2d(
                channels, 3, stride, groups=channels, use_bias=False, dtype=self.dtype, name=name
            )
            return BatchNorm(dtype=self.dtype, name=f"{branch}_{index + 1}")(conv(x), train)

        left, right = (x, x) if self.downsample else jnp.split(x, 2, axis=-1)
        if self.downsample:
            left = pointwise(depthwise(left, "branch1", 0), "branch1", 2)
        right = depthwise(pointwise(right, "branch2", 0), "branch2", 3)
        right = pointwise(right, "branch2", 5)
        return channel_shuffle(jnp.concatenate([left, right], -1), 2)


class ShuffleNetV2(nn.Module):
    """A strided convolution, max pooling, three stages of units, a 1x1 convolution, a linear layer.

    Attributes:
      widths: channels of the stages and of the last convolution.
      depths: units of the stages; the first of each halves the map.
      remat: recompute each unit in the backward pass to save memory.
      features_only: return the maps of strides 2, 4, 8, 16 and 32, before the last convolution.
    """

    num_classes: int = 1000
    widths: Sequence[int] = (116, 232, 464, 1024)
    depths: Sequence[int] = _DEPTHS
    dropout: float = 0.0
    remat: bool = False
    features_only: bool = False
    dtype: jnp.dtype | None = None

    @property
    def feature_strides(self) -> tuple[int, ...]:
        return doubled(len(self.depths) + 2, first=2)

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b k"] | tuple[Float[Array, "b i j d"], ...]:
        def conv(x: Array, width: int, kernel: int, stride: int, name: str) -> Array:
            made = Conv2d(width, kernel, stride, use_bias=False, dtype=self.dtype, name=f"{name}_0")
            return nn.relu(BatchNorm(dtype=self.dtype, name=f"{name}_1")(made(x), train))

        *widths, last = self.widths
        features = [conv(image, 24, 3, 2, "conv1")]
        x = max_pool2d(features[0], 3, 2, 1)
        unit = nn.remat(SplitUnit, static_argnums=(2,)) if self.remat else SplitUnit
        for stage, (width, depth) in enumerate(zip(widths, self.depths, strict=True), start=2):
            features.append(x)
            for index in range(depth):
                x = unit(width, index == 0, self.dtype, name=f"stage{stage}_{index}")(x, train)
        if self.features_only:
            return (*features, x)
        x = global_average_pool(conv(x, last, 1, 1, "conv5"))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return Head(self.num_classes, dtype=self.dtype, name="fc")(x)


# Table 1 of the first paper: channels of the first stage, doubled twice.
_V1 = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}
# Table 5 of the second.
_V2 = {
    "0_5": (48, 96, 192, 1024),
    "1_0": (116, 232, 464, 1024),
    "1_5": (176, 352, 704, 1024),
    "2_0": (244, 488, 976, 2048),
}

VARIANTS = {
    **{
        f"shufflenet_g{groups}_w1": Variant(
            ShuffleNetV1,
            {"widths": (width, 2 * width, 4 * width), "groups": groups},
            f"pytorchcv shufflenet_g{groups}_w1",
            paper="Zhang et al. 2018, https://arxiv.org/abs/1707.01083",
            classifier=("output",),
            first="features.init_block.conv",
        )
        for groups, width in _V1.items()
    },
    **{
        f"shufflenet_v2_x{name}": Variant(
            ShuffleNetV2,
            {"widths": widths},
            f"torchvision shufflenet_v2_x{name}",
            paper="Ma et al. 2018, https://arxiv.org/abs/1807.11164",
            classifier=("fc",),
            first="conv1.0",
        )
        for name, widths in _V2.items()
    },
}
