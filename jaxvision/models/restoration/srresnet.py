"""SRResNet, with batch norms and without: small images to large ones.

Ledig et al., Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network,
2017, https://arxiv.org/abs/1609.04802. References: torch-enhance's `SRResNet`, the paper's network
with a sigmoid at its end, and basicsr's `MSRResNet`, which has no batch norms and adds what it
finds to the bilinearly enlarged image, as Lim et al. 2017 (https://arxiv.org/abs/1707.02921)
found better.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.errors import UserError
from jaxvision.layers.activation import PReLU
from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.normalization import BatchNorm
from jaxvision.models.variant import Variant
from jaxvision.ops.resize import pixel_shuffle, resize


class SRResNet(nn.Module):
    """Images [b, h, w, c] in 0..1 to images `scale` times as large, in 0..1.

    Attributes:
      scale: 2 or 4.
      channels: of the images.
      width: channels of the maps.
      depth: residual blocks.
    """

    scale: int = 4
    channels: int = 3
    width: int = 64
    depth: int = 16
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b i j c"]:
        if self.scale not in (2, 4):
            raise UserError(f"SRResNet enlarges 2 or 4 times; got scale={self.scale}.")
        first = PReLU(self.dtype, shared=True, name="head_1")(self._conv(9, "head_0")(image))
        x = first
        for index in range(self.depth):
            x = _Residual(self.dtype, name=f"res_blocks_{index}")(x, train)
        x = self._conv(3, f"res_blocks_{self.depth}")(x)
        x = first + BatchNorm(dtype=self.dtype, name=f"res_blocks_{self.depth + 1}")(x, train)
        x = _Enlarged(self.scale, self.dtype, name="upsample")(x)
        last = Conv2d(self.channels, 9, dtype=self.dtype, name="tail_0")
        return jax.nn.sigmoid(last(x).astype(jnp.float32))

    def _conv(self, size: int, name: str) -> Conv2d:
        return Conv2d(self.width, size, dtype=self.dtype, name=name)


class _Residual(nn.Module):
    """Two convolutions with batch norms, added to their input."""

    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w c"]:
        y = Conv2d(x.shape[-1], 3, dtype=self.dtype, name="model_0")(x)
        y = BatchNorm(dtype=self.dtype, name="model_1")(y, train)
        y = PReLU(self.dtype, shared=True, name="model_2")(y)
        y = Conv2d(x.shape[-1], 3, dtype=self.dtype, name="model_3")(y)
        return x + BatchNorm(dtype=self.dtype, name="model_4")(y, train)


class _Enlarged(nn.Module):
    """Doubles a map, once or twice."""

    scale: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j c"]:
        width = x.shape[-1]
        for index in range(self.scale // 2):
            x = Conv2d(4 * width, 3, dtype=self.dtype, name=f"model_{3 * index}")(x)
            x = pixel_shuffle(x, 2)
            x = PReLU(self.dtype, shared=True, name=f"model_{3 * index + 2}")(x)
        return x


def _scaled(scale: float) -> Callable[..., Array]:
    """He's initial values, made smaller, so that a residual network begins as almost nothing."""

    def start(key: Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
        return scale * nn.initializers.he_normal()(key, shape, dtype)

    return start


class MSRResNet(nn.Module):
    """Images [b, h, w, c] in 0..1 to images `scale` times as large, about in 0..1.

    Attributes:
      scale: 2, 3 or 4.
      channels: of the images.
      width: channels of the maps.
      depth: residual blocks.
    """

    scale: int = 4
    channels: int = 3
    width: int = 64
    depth: int = 16
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b i j c"]:
        if self.scale not in (2, 3, 4):
            raise UserError(f"MSRResNet enlarges 2, 3 or 4 times; got scale={self.scale}.")
        x = _leaky(self._conv(self.width, "conv_first")(image))
        for index in range(self.depth):
            x = _Plain(self.dtype, name=f"body_{index}")(x)
        for index, times in enumerate((2, 2) if self.scale == 4 else (self.scale,), 1):
            x = self._conv(self.width * times**2, f"upconv{index}")(x)
            x = _leaky(pixel_shuffle(x, times))
        x = _leaky(self._conv(self.width, "conv_hr")(x))
        x = self._conv(self.channels, "conv_last")(x).astype(jnp.float32)
        size = (image.shape[1] * self.scale, image.shape[2] * self.scale)
        return x + resize(image.astype(jnp.float32), size)

    def _conv(self, features: int, name: str) -> Conv2d:
        return Conv2d(features, 3, dtype=self.dtype, kernel_init=_scaled(0.1), name=name)


class _Plain(nn.Module):
    """Two convolutions, added to their input."""

    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        width, start = x.shape[-1], _scaled(0.1)
        y = Conv2d(width, 3, dtype=self.dtype, kernel_init=start, name="conv1")(x)
        y = Conv2d(width, 3, dtype=self.dtype, kernel_init=start, name="conv2")(nn.relu(y))
        return x + y


def _leaky(x: Array) -> Array:
    return nn.leaky_relu(x, 0.1)


_PAPER = "Ledig et al. 2017, https://arxiv.org/abs/1609.04802"
VARIANTS = {
    "srresnet": Variant(
        SRResNet,
        {},
        "torch-enhance SRResNet",
        (24, 24, 3),
        _PAPER,
        first="head.0",
    ),
    "msrresnet": Variant(
        MSRResNet,
        {},
        "basicsr MSRResNet",
        (24, 24, 3),
        _PAPER,
        first="conv_first",
    ),
}
