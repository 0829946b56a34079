"""DCGAN: Radford et al., Unsupervised Representation Learning with Deep Convolutional GANs, 2015.

https://arxiv.org/abs/1511.06434. References: `Generator` and `Discriminator` of
tests/parity/networks/dcgan.py, which at 64 pixels are those of pytorch/examples/dcgan. All values
start from N(0, 0.02), scales of batch norms from N(1, 0.02), as the paper says.
"""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Initializer
from jaxtyping import Array, Float

from jaxvision.errors import UserError
from jaxvision.layers.convolution import Conv2d, ConvTranspose2d
from jaxvision.layers.normalization import BatchNorm
from jaxvision.models.variant import Variant

_NORMAL = nn.initializers.normal(0.02)


def _around_one(key: Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
    return 1 + 0.02 * jax.random.normal(key, shape, dtype)


def _doublings(size: int) -> tuple[int, int]:
    """(side of the smallest map, how often it doubles): 64 is 4 pixels doubled four times.

    Raises:
      UserError: `size` is no power of two from 8 on, and no 7 times a power of two.
    """
    for start in (4, 7):
        times = math.log2(size / start) if size >= 2 * start else 0.0
        if times >= 1 and times == int(times):
            return start, int(times)
    raise UserError(f"size={size} is none of 8, 16, 32, 64, ... or 14, 28, 56, ...")


class Generator(nn.Module):
    """Transposed convolutions from a latent vector [b, latent] to images [b, s, s, c] in -1..1.

    Attributes:
      size: side of the images.
      channels: of the images.
      latent: length of the latent vector.
      width: channels of the last map before the image; each one before has twice as many.
    """

    size: int = 64
    channels: int = 3
    latent: int = 100
    width: int = 64
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, latent: Float[Array, "b z"], train: bool = False) -> Float[Array, "b s s c"]:
        start, times = _doublings(self.size)
        x, layer = latent[:, None, None, :], 0
        for index in range(times):
            kernel, stride, padding = (start, 1, 0) if index == 0 else (4, 2, 1)
            x = self._up(self.width * 2 ** (times - 1 - index), kernel, stride, padding, layer)(x)
            norm = BatchNorm(scale_init=_around_one, dtype=self.dtype, name=f"main_{layer + 1}")
            x = nn.relu(norm(x, train))
            layer += 3
        return jnp.tanh(self._up(self.channels, 4, 2, 1, layer)(x))

    def _up(
        self, features: int, kernel: int, stride: int, padding: int, layer: int
    ) -> ConvTranspose2d:
        return ConvTranspose2d(
            features, kernel, stride, padding, use_bias=False, kernel_init=_NORMAL,
            dtype=self.dtype, name=f"main_{layer}",
        )  # fmt: skip


class Discriminator(nn.Module):
    """Strided convolutions from images [b, s, s, c] to a logit [b]: is it one of the data?

    Attributes:
      width: channels of the first map; each later one has twice as many.
    """

    width: int = 64
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, image: Float[Array, "b s s c"], train: bool = False) -> Float[Array, " b"]:
        start, times = _doublings(image.shape[1])
        x, layer = image, 0
        for index in range(times):
            x = self._down(self.width * 2**index, 4, 2, 1, layer)(x)
            layer += 1
            if index:
                norm = BatchNorm(scale_init=_around_one, dtype=self.dtype, name=f"main_{layer}")
                x = norm(x, train)
                layer += 1
            x = nn.leaky_relu(x, 0.2)
            layer += 1
        return self._down(1, start, 1, 0, layer)(x)[:, 0, 0, 0]

    def _down(self, features: int, kernel: int, stride: int, padding: int, layer: int) -> Conv2d:
        initial: Initializer = _NORMAL
        return Conv2d(
            features, kernel, stride, padding, use_bias=False, kernel_init=initial,
            dtype=self.dtype, name=f"main_{layer}",
        )  # fmt: skip


_PAPER = "Radford et al. 2015, https://arxiv.org/abs/1511.06434"
VARIANTS = {
    "dcgan_generator": Variant(
        Generator,
        {},
        "tests/parity/networks/dcgan.py Generator()",
        (100,),
        _PAPER,
        first="main.0",
        inputs=("latent",),
    ),
    "dcgan_discriminator": Variant(
        Discriminator,
        {},
        "tests/parity/networks/dcgan.py Discriminator()",
        (64, 64, 3),
        _PAPER,
        first="main.0",
    ),
}
