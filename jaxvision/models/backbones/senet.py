"""SENet: Hu et al., Squeeze-and-Excitation Networks, 2017.

https://arxiv.org/abs/1709.01507. References: `timm` `legacy_senet154` (the ILSVRC 2017 network) and
`legacy_seresnet50` ..., the authors' Caffe networks: unlike in `resnet`, max pooling is not
padded and an SE-ResNet's strides are at the first 1x1 convolutions.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.head import Head
from jaxvision.layers.images import check_size
from jaxvision.layers.normalization import BatchNorm
from jaxvision.layers.pyramid import doubled
from jaxvision.layers.squeeze_excite import SqueezeExcite
from jaxvision.models.variant import Variant
from jaxvision.ops.pooling import global_average_pool, max_pool2d

_SMALLEST = 3
_SQUEEZE = 16


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a squeeze-and-excitation, beside a shortcut.

    Attributes:
      features: a quarter of the output's channels.
      wide: SENet-154's: the first two convolutions are two and four times as wide, the second is
        grouped and strided, and a strided shortcut is a 3x3 convolution.
      dilation: of the 3x3 convolutions.
      project: whether the shortcut is a convolution.
    """

    features: int
    stride: int = 1
    dilation: int = 1
    wide: bool = True
    project: bool = False
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b i j d"]:
        conv = partial(Conv2d, use_bias=False, dtype=self.dtype)

        def norm(x: Array, name: str) -> Array:
            return BatchNorm(dtype=self.dtype, name=name)(x, train)

        out, widths = 4 * self.features, (self.features, self.features)
        strides, groups = (self.stride, 1), 1
        if self.wide:
            widths = (2 * self.features, 4 * self.features)
            strides, groups = (1, self.stride), 64
        y = nn.relu(norm(conv(widths[0], 1, strides[0], name="conv1")(x), "bn1"))
        dilated: dict[str, Any] = {"dilation": self.dilation}
        y = conv(widths[1], 3, strides[1], groups=groups, **dilated, name="conv2")(y)
        y = norm(conv(out, 1, name="conv3")(nn.relu(norm(y, "bn2"))), "bn3")
        if self.project:
            kernel = 3 if self.wide and self.stride * self.dilation > 1 else 1
            shortcut = conv(out, kernel, self.stride, **dilated, name="downsample_0")
            x = norm(shortcut(x), "downsample_1")
        return nn.relu(x + SqueezeExcite(out // _SQUEEZE, dtype=self.dtype, name="se_module")(y))


class SENet(nn.Module):
    """A 7x7 convolution or three 3x3, max pooling, four stages, a mean and a linear layer.

    Attributes:
      depths: blocks of the stages.
      wide: see `Bottleneck`; the first layer is then three 3x3 convolutions.
      output_stride: 32, or 16 or 8: later stages are then dilated instead of strided, as in
        segmentation_models_pytorch.
      remat: recompute each block in the backward pass to save memory.
      features_only: return the maps of strides 2, 4, 8, 16 and 32 (stem and stages).
    """

    num_classes: int = 1000
    depths: Sequence[int] = (3, 8, 36, 3)
    wide: bool = True
    output_stride: int = 32
    dropout: float = 0.2
    remat: bool = False
    features_only: bool = False
    dtype: jnp.dtype | None = None

    @property
    def feature_strides(self) -> tuple[int, ...]:
        return doubled(len(self.depths) + 1, first=2, last=self.output_stride)

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b k"] | tuple[Float[Array, "b i j d"], ...]:
        check_size(image, _SMALLEST, "SENet")
        x, stem = image, ((64, 3, 2), (64, 3, 1), (128, 3, 1)) if self.wide else ((64, 7, 2),)
        for index, (width, kernel, stride) in enumerate(stem, start=1):
            name = f"layer0.conv{index}"
            x = Conv2d(width, kernel, stride, use_bias=False, dtype=self.dtype, name=name)(x)
            x = nn.relu(BatchNorm(dtype=self.dtype, name=f"layer0.bn{index}")(x, train))
        features = [x]
        x = max_pool2d(x, 3, 2, ceil_mode=True)
        block = nn.remat(Bottleneck, static_argnums=(2,)) if self.remat else Bottleneck
        reached, dilation = 4, 1
        for stage, depth in enumerate(self.depths):
            stride = 2 if stage else 1
            if reached * stride > self.output_stride:
                dilation, stride = dilation * stride, 1
            reached *= stride
            for index in range(depth):
                x = block(
                    64 * 2**stage,
                    stride if index == 0 else 1,
                    dilation,
                    self.wide,
                    project=index == 0,
                    dtype=self.dtype,
                    name=f"layer{stage + 1}_{index}",
                )(x, train)
            features.append(x)
        if self.features_only:
            return tuple(features)
        x = nn.Dropout(self.dropout, deterministic=not train)(global_average_pool(x))
        return Head(self.num_classes, dtype=self.dtype, name="last_linear")(x)


VARIANTS = {
    name: Variant(
        SENet,
        {"depths": depths, "wide": name == "legacy_senet154"},
        f"timm {name}",
        paper="Hu et al. 2017, https://arxiv.org/abs/1709.01507",
        classifier=("last_linear",),
        first="layer0.conv1",
    )
    for name, depths in {
        "legacy_senet154": (3, 8, 36, 3),
        "legacy_seresnet50": (3, 4, 6, 3),
        "legacy_seresnet101": (3, 4, 23, 3),
        "legacy_seresnet152": (3, 8, 36, 3),
    }.items()
}
