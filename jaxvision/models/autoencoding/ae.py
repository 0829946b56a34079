"""Autoencoders with a vector between encoder and decoder.

Hinton and Salakhutdinov, Reducing the Dimensionality of Data with Neural Networks, 2006,
https://doi.org/10.1126/science.1127647. References: pythae's `AE` with its default layers, and with
those that its benchmarks use on MNIST (`Encoder_Conv_AE_MNIST`, `Decoder_Conv_AE_MNIST`), here for
images of any one size. The references' last sigmoid is left out; the likelihood of pixels has it.
"""

import math
from collections.abc import Sequence
from typing import ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.errors import UserError
from jaxvision.layers.convolution import Conv2d, ConvTranspose2d
from jaxvision.layers.head import flatten
from jaxvision.layers.linear import Dense
from jaxvision.layers.normalization import BatchNorm
from jaxvision.models.variant import Variant
from jaxvision.ops.windows import Pair, pair


def check_image(image: Array, size: Pair, channels: int) -> None:
    """Refuses images that a network of one size is not for.

    Raises:
      UserError: naming both shapes.
    """
    wanted = (*pair(size), channels)
    if image.shape[1:] != wanted:
        raise UserError(
            f"The network is for images of {list(wanted)}, these are {list(image.shape[1:])}. Set "
            "--config.model.options.size, or resize the data."
        )


def as_image(x: Float[Array, "b n"], size: tuple[int, int]) -> Float[Array, "b h w c"]:
    """The inverse of `layers.head.flatten`."""
    return x.reshape(x.shape[0], -1, *size).transpose(0, 2, 3, 1)


class MlpEncoder(nn.Module):
    """Linear layers with ReLU, and a last one without.

    Attributes:
      hidden: widths of the former.
      latent: width of the latter.
    """

    hidden: Sequence[int]
    latent: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, image: Float[Array, "b h w c"]) -> Float[Array, "b k"]:
        x = flatten(image)
        for index, width in enumerate(self.hidden):
            x = nn.relu(Dense(width, dtype=self.dtype, name=f"layers_{index}_0")(x))
        return Dense(self.latent, dtype=self.dtype, name="embedding")(x)


class MlpDecoder(nn.Module):
    """Linear layers with ReLU between, the last to the pixels of an image.

    Attributes:
      hidden: widths of the layers before.
      size: (height, width) of the image.
      channels: of the image.
    """

    hidden: Sequence[int]
    size: tuple[int, int]
    channels: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, latent: Float[Array, "b k"]) -> Float[Array, "b h w c"]:
        x = latent
        for index, width in enumerate(self.hidden):
            x = nn.relu(Dense(width, dtype=self.dtype, name=f"layers_{index}_0")(x))
        pixels = math.prod(self.size) * self.channels
        x = Dense(pixels, dtype=self.dtype, name=f"layers_{len(self.hidden)}_0")(x)
        return as_image(x, self.size)


class ConvEncoder(nn.Module):
    """Convolutions that halve the map, then a linear layer of each name in `heads`.

    Attributes:
      widths: channels after each convolution.
      latent: width of the linear layers.
      heads: their names.
    """

    widths: Sequence[int]
    latent: int
    heads: tuple[str, ...] = ("embedding",)
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], train: bool
    ) -> tuple[Float[Array, "b k"], ...]:
        smallest = 2 ** len(self.widths)
        if min(image.shape[1:3]) < smallest:
            raise UserError(
                f"{len(self.widths)} widths halve images of {smallest} pixels or more, not of "
                f"{min(image.shape[1:3])}; give model.options.widths fewer."
            )
        x = image
        for index, width in enumerate(self.widths):
            x = Conv2d(width, 4, 2, 1, dtype=self.dtype, name=f"layers_{index}_0")(x)
            norm = BatchNorm(dtype=self.dtype, name=f"layers_{index}_1")
            x = nn.relu(norm(x, train))
        x = flatten(x)
        return tuple(Dense(self.latent, dtype=self.dtype, name=name)(x) for name in self.heads)


class ConvDecoder(nn.Module):
    """A linear layer to a small map, which transposed convolutions double to the image's size.

    Attributes:
      widths: channels, from the last map to the first; the image takes the place of the first.
      size: (height, width) of the image.
      channels: of the image.
    """

    widths: Sequence[int]
    size: tuple[int, int]
    channels: int
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, latent: Float[Array, "b k"], train: bool) -> Float[Array, "b h w c"]:
        sizes = [self.size]  # from the image's to the first map's
        for _ in self.widths[1:]:
            height, width = (-(-side // 2) for side in sizes[-1])
            sizes.append((height, width))
        start, *larger = reversed(sizes)
        x = Dense(math.prod(start) * self.widths[-1], dtype=self.dtype, name="layers_0")(latent)
        x = as_image(x, start)
        outputs = (*reversed(self.widths[1:-1]), self.channels)
        for index, (size, features) in enumerate(zip(larger, outputs, strict=True), start=1):
            # A map of n pixels becomes one of 2 n - 1, or with one pixel more 2 n.
            more = [1 - side % 2 for side in size]
            x = ConvTranspose2d(
                features, 3, 2, 1, more, dtype=self.dtype, name=f"layers_{index}_0"
            )(x)
            if index < len(outputs):
                norm = BatchNorm(dtype=self.dtype, name=f"layers_{index}_1")
                x = nn.relu(norm(x, train))
        return x


class MlpAutoencoder(nn.Module):
    """Linear layers to a vector and back; without hidden ones it is linear, as PCA is.

    Attributes:
      size: side or (height, width) of the images.
      channels: of the images.
      latent: length of the vector.
      hidden: widths of the encoder's layers; the decoder has them in reverse.
    """

    CODE: ClassVar[str] = "vector"
    stride: ClassVar[int] = 1

    size: Pair = 28
    channels: int = 1
    latent: int = 16
    hidden: Sequence[int] = (512,)
    dtype: jnp.dtype | None = None

    def setup(self):
        self.encoder = MlpEncoder(self.hidden, self.latent, self.dtype)
        hidden = tuple(reversed(self.hidden))
        self.decoder = MlpDecoder(hidden, pair(self.size), self.channels, self.dtype)

    def encode(self, image: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b k"]:
        check_image(image, self.size, self.channels)
        return self.encoder(image)

    def decode(self, latent: Float[Array, "b k"], train: bool = False) -> Float[Array, "b h w c"]:
        return self.decoder(latent)

    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b h w c"]:
        return self.decode(self.encode(image, train), train)


class ConvAutoencoder(nn.Module):
    """Strided convolutions to a vector, transposed ones back.

    Attributes:
      size: side or (height, width) of the images.
      channels: of the images.
      latent: length of the vector.
      widths: channels of the encoder's maps; see `ConvDecoder` for the decoder's.
    """

    CODE: ClassVar[str] = "vector"
    stride: ClassVar[int] = 1

    size: Pair = 28
    channels: int = 1
    latent: int = 16
    widths: Sequence[int] = (128, 256, 512, 1024)
    dtype: jnp.dtype | None = None

    def setup(self):
        self.encoder = ConvEncoder(self.widths, self.latent, dtype=self.dtype)
        self.decoder = ConvDecoder(self.widths, pair(self.size), self.channels, self.dtype)

    def encode(self, image: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b k"]:
        check_image(image, self.size, self.channels)
        (code,) = self.encoder(image, train)
        return code

    def decode(self, latent: Float[Array, "b k"], train: bool = False) -> Float[Array, "b h w c"]:
        return self.decoder(latent, train)

    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b h w c"]:
        return self.decode(self.encode(image, train), train)


_PAPER = "Hinton and Salakhutdinov 2006, https://doi.org/10.1126/science.1127647"
VARIANTS = {
    "ae_linear": Variant(
        MlpAutoencoder,
        {"hidden": ()},
        "pythae AE(AEConfig((1, 28, 28), 16)), without its hidden layers",
        (28, 28, 1),
        _PAPER,
        first="encoder.embedding",
    ),
    "ae_mlp": Variant(
        MlpAutoencoder,
        {},
        "pythae AE(AEConfig((1, 28, 28), 16))",
        (28, 28, 1),
        _PAPER,
        first="encoder.layers.0.0",
    ),
    "ae_conv": Variant(
        ConvAutoencoder,
        {},
        "pythae AE(AEConfig((1, 28, 28), 16), Encoder_Conv_AE_MNIST, Decoder_Conv_AE_MNIST)",
        (28, 28, 1),
        _PAPER,
        first="encoder.layers.0.0",
    ),
}
