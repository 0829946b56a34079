"""Autoencoder: Hinton and Salakhutdinov, Reducing the Dimensionality of Data, 2006.

https://doi.org/10.1126/science.1127647; here of convolutions, as in Masci et al., Stacked
Convolutional Auto-Encoders, 2011, https://doi.org/10.1007/978-3-642-21735-7_7. Strided convolutions
lead to a bottleneck, transposed ones back to the image's size. Without classes it reconstructs the
image; with classes the same network labels its pixels, with nothing but the bottleneck between
encoder and decoder: what FCN and U-Net add skip connections to. The reference is
tests/parity/networks/autoencoder.py. Weights of one that reconstructs initialise one that labels.
"""

import math

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.errors import UserError
from jaxvision.layers.convolution import Conv2d, ConvTranspose2d
from jaxvision.layers.head import flatten
from jaxvision.layers.images import pad_to_multiple
from jaxvision.layers.linear import Dense
from jaxvision.layers.normalization import BatchNorm
from jaxvision.models.variant import Variant


class Halve(nn.Module):
    """A 3x3 convolution with stride 2, batch normalisation and ReLU."""

    features: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b i j d"]:
        x = Conv2d(self.features, 3, 2, use_bias=False, dtype=self.dtype, name="conv")(x)
        return nn.relu(BatchNorm(dtype=self.dtype, name="bn")(x, train))


class Double(nn.Module):
    """A 4x4 transposed convolution with stride 2, batch normalisation and ReLU."""

    features: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b i j d"]:
        up = ConvTranspose2d(
            self.features, 4, 2, 1, use_bias=False, dtype=self.dtype, name="deconv"
        )
        return nn.relu(BatchNorm(dtype=self.dtype, name="bn")(up(x), train))


class Autoencoder(nn.Module):
    """Halvings, a bottleneck and as many doublings.

    Returns logits [b, h, w, num_classes], or with no classes the image again, of any value. Images
    whose sides are no multiple of the stride are padded below and to the right, and what comes out
    is cut back. With a vector as bottleneck all images must have the size of the first.

    Attributes:
      widths: channels after each halving.
      latent: length of the bottleneck's vector; 0 leaves it a map.
    """

    num_classes: int = 21
    widths: tuple[int, ...] = (32, 64, 128)
    latent: int = 0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b h w k"]:
        if self.latent < 0:
            raise UserError(f"latent={self.latent} is the length of a vector, or 0 for a map.")
        height, width, channels = image.shape[1:]
        x = pad_to_multiple(image, 2 ** len(self.widths))
        for index, features in enumerate(self.widths):
            x = Halve(features, self.dtype, name=f"encoder_{index}")(x, train)
        if self.latent:
            batch, *size = x.shape
            x = Dense(self.latent, dtype=self.dtype, name="bottleneck")(flatten(x))
            x = nn.relu(Dense(math.prod(size), dtype=self.dtype, name="expand")(x))
            x = x.reshape(batch, size[2], *size[:2]).transpose(0, 2, 3, 1)
        for index, features in enumerate((*self.widths[-2::-1], self.widths[0])):
            x = Double(features, self.dtype, name=f"decoder_{index}")(x, train)
        outputs, name = (self.num_classes, "score") if self.num_classes else (channels, "image")
        x = Conv2d(outputs, 3, dtype=self.dtype, name=name)(x)
        return x[:, :height, :width]


def _variant(**options: int) -> Variant:
    return Variant(
        Autoencoder,
        options,
        "tests/parity/networks/autoencoder.py Autoencoder",
        (64, 64, 3),
        "Hinton and Salakhutdinov 2006, https://doi.org/10.1126/science.1127647",
        classifier=("score",),
        first="encoder.0.conv",
        auxiliary=("image.",),
    )


VARIANTS = {"autoencoder": _variant(), "autoencoder_vector": _variant(latent=256)}
