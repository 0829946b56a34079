"""SqueezeNet: Iandola et al., SqueezeNet: AlexNet-level accuracy with 50x fewer parameters, 2016.

https://arxiv.org/abs/1602.07360. References: `torchvision.models.squeezenet1_0` and
`squeezenet1_1`. Version 1.0 is the paper's network; 1.1, of the authors' repository, pools earlier
and needs 2.4 times fewer operations.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.images import check_size
from jaxvision.layers.pyramid import doubled
from jaxvision.models.variant import Variant
from jaxvision.ops.pooling import global_average_pool, max_pool2d

_SQUEEZED = (16, 16, 32, 32, 48, 48, 64, 64)


class Fire(nn.Module):
    """A 1x1 convolution that narrows, then 1x1 and 3x3 ones beside each other, 8 times wider.

    Attributes:
      squeezed: channels of the first.
    """

    squeezed: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
        def conv(features: int, kernel: int, name: str, x: Array) -> Array:
            return nn.relu(Conv2d(features, kernel, dtype=self.dtype, name=name)(x))

        x = conv(self.squeezed, 1, "squeeze", x)
        expanded = (conv(4 * self.squeezed, k, f"expand{k}x{k}", x) for k in (1, 3))
        return jnp.concatenate([*expanded], -1)


class SqueezeNet(nn.Module):
    """A convolution, eight fire modules with max pooling between, a 1x1 convolution and a mean.

    Attributes:
      width: channels of the first convolution.
      kernel_size: of the first convolution.
      pools: before which fire modules the map is pooled, counted from 0.
      remat: recompute each fire module in the backward pass to save memory.
      features_only: return the maps of strides 2, 4, 8 and 16, the first three before pooling.
    """

    num_classes: int = 1000
    width: int = 96
    kernel_size: int = 7
    pools: Sequence[int] = (0, 3, 7)
    dropout: float = 0.5
    remat: bool = False
    features_only: bool = False
    dtype: jnp.dtype | None = None

    @property
    def feature_strides(self) -> tuple[int, ...]:
        return doubled(len(self.pools) + 1, first=2)

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b k"] | tuple[Float[Array, "b i j d"], ...]:
        smallest = 14 + self.kernel_size
        check_size(image, smallest, "This SqueezeNet")
        conv = Conv2d(self.width, self.kernel_size, 2, 0, dtype=self.dtype, name="features_0")
        x, features, index = nn.relu(conv(image)), [], 2
        fire = nn.remat(Fire) if self.remat else Fire
        for position, squeezed in enumerate(_SQUEEZED):
            if position in self.pools:
                features.append(x)
                x = max_pool2d(x, 3, 2, ceil_mode=True)
                index += 1
            x = fire(squeezed, self.dtype, name=f"features_{index}")(x)
            index += 1
        if self.features_only:
            return (*features, x)
        if self.num_classes:
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
            x = nn.relu(Conv2d(self.num_classes, 1, dtype=self.dtype, name="classifier_1")(x))
        return global_average_pool(x)


def _variant(name: str, **options: object) -> Variant:
    return Variant(
        SqueezeNet,
        options,
        f"torchvision {name}",
        paper="Iandola et al. 2016, https://arxiv.org/abs/1602.07360",
        classifier=("classifier.1",),
        first="features.0",
    )


VARIANTS = {
    "squeezenet1_0": _variant("squeezenet1_0"),
    "squeezenet1_1": _variant("squeezenet1_1", width=64, kernel_size=3, pools=(0, 2, 4)),
}
