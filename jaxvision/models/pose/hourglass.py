"""Stacked hourglasses: Newell et al., Stacked Hourglass Networks for Human Pose Estimation, 2016.

https://arxiv.org/abs/1603.06937. Reference: `HourglassNet` of bearpaw/pytorch-pose, whose trunk
kornia has as `feature.sold2.backbones.HourglassNet`. As there, the second block of the stem already
has all channels, and the third one has no projection; the authors' Torch code widens in the third.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.images import check_size
from jaxvision.layers.normalization import BatchNorm
from jaxvision.models.variant import Variant
from jaxvision.ops.pooling import max_pool2d
from jaxvision.ops.resize import resize

_small = nn.initializers.normal(0.001)  # heat maps are nearly 0 nearly everywhere


Maps = Float[Array, "b i j k"]


class Residual(nn.Module):
    """1x1, 3x3, 1x1 with norm and ReLU before each, beside a shortcut (pre-activation).

    Attributes:
      features: channels of the output; the two convolutions before have half as many.
    """

    features: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w d"]:
        y, half = x, self.features // 2
        for index, (features, size) in enumerate(((half, 1), (half, 3), (self.features, 1)), 1):
            y = nn.relu(BatchNorm(dtype=self.dtype, name=f"bn{index}")(y, train))
            y = Conv2d(features, size, dtype=self.dtype, name=f"conv{index}")(y)
        if x.shape[-1] != self.features:
            x = Conv2d(self.features, 1, dtype=self.dtype, name="downsample_0")(x)
        return x + y


class Hourglass(nn.Module):
    """Halves a map `depth` times and doubles it back, adding at each size what was there before.

    Where a side is odd, the smaller map is enlarged to the larger one's size.

    Attributes:
      depth: how often the map is halved.
      blocks: residual blocks at each place.
    """

    depth: int = 4
    blocks: int = 1
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w c"]:
        def residuals(level: int, place: int, x: Array) -> Array:
            for block in range(self.blocks):
                name = f"hg_{level}_{place}_{block}"
                x = Residual(x.shape[-1], dtype=self.dtype, name=name)(x, train)
            return x

        def through(level: int, x: Array) -> Array:
            beside = residuals(level, 0, x)
            y = residuals(level, 1, max_pool2d(x, 2))
            y = through(level - 1, y) if level else residuals(level, 3, y)
            y = residuals(level, 2, y)
            return beside + resize(y, x.shape[1:3], "nearest")

        return through(self.depth - 1, x)


class HourglassNet(nn.Module):
    """A stem of stride 4 and hourglasses in a row, each of which gives heat maps.

    Returns heat maps [b, h / 4, w / 4, num_classes]; in training a dict, `aux1`, ... of the first
    hourglasses and `logits` of the last. What an hourglass found is added to what the next one sees
    (intermediate supervision).

    Attributes:
      num_classes: number of key points.
      stacks: number of hourglasses.
      features: channels of the hourglasses.
      blocks, depth: see `Hourglass`.
      features_only: return the map of stride 4 that the last heat maps would be made of. Then what
        an hourglass would find is not added to what the next one sees.
    """

    ENDS = ("classes", "pyramid")

    num_classes: int = 16
    stacks: int = 2
    features: int = 256
    blocks: int = 1
    depth: int = 4
    features_only: bool = False
    dtype: jnp.dtype | None = None

    @property
    def feature_strides(self) -> tuple[int, ...]:
        return (4,)

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Maps | tuple[Maps] | dict[str, Maps]:
        check_size(image, 4 * 2**self.depth - 1, "The hourglass")

        def conv(features: int, name: str, x: Array, **options: Any) -> Array:
            return Conv2d(features, 1, dtype=self.dtype, name=name, **options)(x)

        def residual(features: int, name: str, x: Array) -> Array:
            return Residual(features, dtype=self.dtype, name=name)(x, train)

        def norm(name: str, x: Array) -> Array:
            return nn.relu(BatchNorm(dtype=self.dtype, name=name)(x, train))

        width = self.features
        x = Conv2d(width // 4, 7, 2, dtype=self.dtype, name="conv1")(image)
        x = max_pool2d(residual(width // 2, "layer1_0", norm("bn1", x)), 2)
        x = residual(width, "layer3_0", residual(width, "layer2_0", x))
        maps = []
        for stack in range(self.stacks):
            y = Hourglass(self.depth, self.blocks, self.dtype, name=f"hg_{stack}")(x, train)
            for block in range(self.blocks):
                y = residual(width, f"res_{stack}_{block}", y)
            y = norm(f"fc_{stack}_1", conv(width, f"fc_{stack}_0", y))
            last = stack == self.stacks - 1
            # The reference's names end in an underscore: `fc_.0`, `score_.0`.
            if not last:
                x = x + conv(width, f"fc__{stack}", y)
            if self.features_only:
                continue
            maps.append(conv(self.num_classes, f"score_{stack}", y, kernel_init=_small))
            if not last:
                x = x + conv(width, f"score__{stack}", maps[-1])
        if self.features_only:
            return (y,)
        if not train:
            return maps[-1]
        return {**{f"aux{i}": one for i, one in enumerate(maps[:-1], 1)}, "logits": maps[-1]}


def _variant(stacks: int) -> Variant:
    return Variant(
        HourglassNet,
        {"stacks": stacks},
        f"bearpaw/pytorch-pose hg(num_stacks={stacks}, num_blocks=1)",
        (256, 256, 3),
        "Newell et al. 2016, https://arxiv.org/abs/1603.06937",
        classifier=(
            *(f"score.{stack}" for stack in range(stacks)),
            *(f"score_.{stack}" for stack in range(stacks - 1)),
        ),
        first="conv1",
    )


VARIANTS = {f"hourglass{stacks}": _variant(stacks) for stacks in (1, 2, 8)}
