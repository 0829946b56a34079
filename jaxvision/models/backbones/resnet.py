"""ResNet and its descendants: He et al., Deep Residual Learning for Image Recognition, 2015.

https://arxiv.org/abs/1512.03385. ResNeXt: Xie et al., Aggregated Residual Transformations for Deep
Neural Networks, 2016, https://arxiv.org/abs/1611.05431. Wide ResNet: Zagoruyko and Komodakis, Wide
Residual Networks, 2016, https://arxiv.org/abs/1605.07146. SE-ResNet: Hu et al.,
Squeeze-and-Excitation Networks, 2017, https://arxiv.org/abs/1709.01507.

References: `torchvision.models.resnet50` ...; `timm` `seresnet50` ... for the squeezing ones. As
there, the stride of a bottleneck is at its 3x3 convolution ("v1.5"), at the first 1x1 in the paper.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.blocks import DropPath, drop_path_rates
from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.head import Head
from jaxvision.layers.normalization import BatchNorm
from jaxvision.layers.pyramid import doubled
from jaxvision.layers.squeeze_excite import SqueezeExcite
from jaxvision.models.moco_names import backbone_of_moco
from jaxvision.models.variant import Variant
from jaxvision.ops.pooling import global_average_pool, max_pool2d

Features = tuple[Float[Array, "b h w c"], ...]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, or 1x1, 3x3, 1x1 (bottleneck), beside a shortcut.

    Attributes:
      features: the stage's base width; a bottleneck puts out four times as many channels.
      stride: of the first 3x3 convolution and of the shortcut.
      dilation: of the first 3x3 convolution.
      second_dilation: of the other one, which a bottleneck has not.
      bottleneck: whether it is 1x1, 3x3, 1x1.
      groups: of the bottleneck's 3x3 convolution.
      group_width: channels of one group when `features` is 64.
      squeeze: by how much a squeeze-and-excitation narrows the channels; 0 is none.
      project: whether the shortcut is a 1x1 convolution.
    """

    features: int
    stride: int = 1
    dilation: int = 1
    second_dilation: int = 1
    bottleneck: bool = True
    groups: int = 1
    group_width: int = 64
    squeeze: int = 0
    project: bool = False
    drop_path: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b i j d"]:
        def norm(x: Array, name: str) -> Array:
            return BatchNorm(dtype=self.dtype, name=name)(x, train)

        def conv(features: int, kernel: int, name: str, stride: int = 1, **more: Any) -> Conv2d:
            return Conv2d(
                features, kernel, stride, use_bias=False, dtype=self.dtype, name=name, **more
            )

        out = self.features * (4 if self.bottleneck else 1)
        spatial = {"stride": self.stride, "dilation": self.dilation}
        if self.bottleneck:
            width = self.features * self.group_width // 64 * self.groups
            y = nn.relu(norm(conv(width, 1, "conv1")(x), "bn1"))
            y = nn.relu(norm(conv(width, 3, "conv2", groups=self.groups, **spatial)(y), "bn2"))
            y = norm(conv(out, 1, "conv3")(y), "bn3")
        else:
            y = nn.relu(norm(conv(out, 3, "conv1", **spatial)(x), "bn1"))
            y = norm(conv(out, 3, "conv2", dilation=self.second_dilation)(y), "bn2")
        if self.squeeze:
            y = SqueezeExcite(max(8, out // self.squeeze), dtype=self.dtype, name="se")(y)
        if self.project:
            x = norm(conv(out, 1, "downsample_0", stride=self.stride)(x), "downsample_1")
        return nn.relu(x + DropPath(self.drop_path)(y, train))


class ResNet(nn.Module):
    """A 7x7 convolution, max pooling, four stages of residual blocks, a mean and a linear layer.

    Attributes:
      depths: blocks of the four stages.
      bottleneck, groups, group_width, squeeze: see `ResidualBlock`.
      output_stride: 32, or 16 or 8: later stages are then dilated instead of strided.
      dilate_first: whether the first convolution of such a stage is dilated like the others; in
        torchvision and timm it has the dilation of the stage before.
      drop_path: stochastic depth of the last block; earlier ones have linearly less.
      remat: recompute each block in the backward pass to save memory.
      features_only: return the maps of strides 2, 4, 8, 16 and 32 (stem and stages).
    """

    num_classes: int = 1000
    depths: Sequence[int] = (3, 4, 6, 3)
    bottleneck: bool = True
    groups: int = 1
    group_width: int = 64
    squeeze: int = 0
    output_stride: int = 32
    dilate_first: bool = False
    dropout: float = 0.0
    drop_path: float = 0.0
    remat: bool = False
    features_only: bool = False
    dtype: jnp.dtype | None = None

    @property
    def feature_strides(self) -> tuple[int, ...]:
        return doubled(len(self.depths) + 1, first=2, last=self.output_stride)

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b k"] | Features:
        x = Conv2d(64, 7, 2, use_bias=False, dtype=self.dtype, name="conv1")(image)
        x = nn.relu(BatchNorm(dtype=self.dtype, name="bn1")(x, train))
        features = [x]
        x = max_pool2d(x, 3, stride=2, padding=1)
        block = nn.remat(ResidualBlock, static_argnums=(2,)) if self.remat else ResidualBlock
        reached, dilation = 4, 1
        rates = iter(drop_path_rates(sum(self.depths), self.drop_path))
        for stage, depth in enumerate(self.depths):
            before, stride = dilation, 2 if stage else 1
            if reached * stride > self.output_stride:
                dilation, stride = dilation * stride, 1
            reached *= stride
            for position in range(depth):
                first = position == 0
                x = block(
                    64 * 2**stage,
                    stride if first else 1,
                    before if first and not self.dilate_first else dilation,
                    dilation,
                    self.bottleneck,
                    self.groups,
                    self.group_width,
                    self.squeeze,
                    first and (stage > 0 or self.bottleneck),
                    next(rates),
                    self.dtype,
                    name=f"layer{stage + 1}_{position}",
                )(x, train)
            features.append(x)
        if self.features_only:
            return tuple(features)
        x = nn.Dropout(self.dropout, deterministic=not train)(global_average_pool(x))
        return Head(self.num_classes, dtype=self.dtype, name="fc")(x)


# Table 1 of the paper.
_DEPTHS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


def _variant(depth: int, reference: str, paper: str, **options: int) -> Variant:
    shape = {"depths": _DEPTHS[depth], "bottleneck": depth >= 50}
    return Variant(
        ResNet,
        shape | options,
        reference,
        paper=paper,
        classifier=("fc",),
        first="conv1",
        convert=backbone_of_moco,
    )


_HE = "He et al. 2015, https://arxiv.org/abs/1512.03385"
_HU = "Hu et al. 2017, https://arxiv.org/abs/1709.01507"
_XIE = "Xie et al. 2016, https://arxiv.org/abs/1611.05431"
_ZAGORUYKO = "Zagoruyko and Komodakis 2016, https://arxiv.org/abs/1605.07146"

VARIANTS = {
    **{f"resnet{d}": _variant(d, f"torchvision resnet{d}", _HE) for d in _DEPTHS},
    **{f"seresnet{d}": _variant(d, f"timm seresnet{d}", _HU, squeeze=16) for d in _DEPTHS},
    **{
        f"wide_resnet{d}_2": _variant(
            d, f"torchvision wide_resnet{d}_2", _ZAGORUYKO, group_width=128
        )
        for d in (50, 101)
    },
    **{
        f"resnext{d}_{g}x{w}d": _variant(
            d, f"torchvision resnext{d}_{g}x{w}d", _XIE, groups=g, group_width=w
        )
        for d, g, w in ((50, 32, 4), (101, 32, 8), (101, 64, 4))
    },
}
