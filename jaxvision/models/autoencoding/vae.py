"""VAE: Kingma and Welling, Auto-Encoding Variational Bayes, 2013, https://arxiv.org/abs/1312.6114.

References: `VAE` of pytorch/examples/vae (`vae_mlp`), and pythae's `VAE` with the layers that its
benchmarks use on MNIST (`Encoder_Conv_VAE_MNIST`, `Decoder_Conv_AE_MNIST`; `vae_conv`), here for
images of any one size. The references' last sigmoid is left out; the likelihood of pixels has it.
"""

import math
from collections.abc import Sequence
from typing import ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxvision.layers.head import flatten
from jaxvision.layers.linear import Dense
from jaxvision.models.autoencoding.ae import ConvDecoder, ConvEncoder, as_image, check_image
from jaxvision.models.autoencoding.posterior import Posterior
from jaxvision.models.variant import Variant
from jaxvision.ops.windows import Pair, pair


class MlpVAE(nn.Module):
    """One hidden layer on either side of the latent variables.

    Attributes:
      size: side or (height, width) of the images.
      channels: of the images.
      latent: how many latent variables.
      hidden: width of the hidden layers.
    """

    CODE: ClassVar[str] = "posterior"
    stride: ClassVar[int] = 1

    size: Pair = 28
    channels: int = 1
    latent: int = 20
    hidden: int = 400
    dtype: jnp.dtype | None = None

    def setup(self):
        pixels = math.prod(pair(self.size)) * self.channels
        self.fc1 = Dense(self.hidden, dtype=self.dtype)
        self.fc21 = Dense(self.latent, dtype=self.dtype)
        self.fc22 = Dense(self.latent, dtype=self.dtype)
        self.fc3 = Dense(self.hidden, dtype=self.dtype)
        self.fc4 = Dense(pixels, dtype=self.dtype)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Of one image's latent variables."""
        return (self.latent,)

    def encode(self, image: Float[Array, "b h w c"], train: bool = False) -> Posterior:
        check_image(image, self.size, self.channels)
        x = nn.relu(self.fc1(flatten(image)))
        return Posterior(self.fc21(x), self.fc22(x))

    def decode(self, latent: Float[Array, "b k"], train: bool = False) -> Float[Array, "b h w c"]:
        return as_image(self.fc4(nn.relu(self.fc3(latent))), pair(self.size))

    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b h w c"]:
        return self.decode(self.encode(image, train).mean, train)


class ConvVAE(nn.Module):
    """Strided convolutions to the latent variables, transposed ones back.

    Attributes:
      size: side or (height, width) of the images.
      channels: of the images.
      latent: how many latent variables.
      widths: channels of the encoder's maps; see `ConvDecoder` for the decoder's.
    """

    CODE: ClassVar[str] = "posterior"
    stride: ClassVar[int] = 1

    size: Pair = 28
    channels: int = 1
    latent: int = 16
    widths: Sequence[int] = (128, 256, 512, 1024)
    dtype: jnp.dtype | None = None

    def setup(self):
        heads = ("embedding", "log_var")
        self.encoder = ConvEncoder(self.widths, self.latent, heads, self.dtype)
        self.decoder = ConvDecoder(self.widths, pair(self.size), self.channels, self.dtype)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Of one image's latent variables."""
        return (self.latent,)

    def encode(self, image: Float[Array, "b h w c"], train: bool = False) -> Posterior:
        check_image(image, self.size, self.channels)
        return Posterior(*self.encoder(image, train))

    def decode(self, latent: Float[Array, "b k"], train: bool = False) -> Float[Array, "b h w c"]:
        return self.decoder(latent, train)

    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b h w c"]:
        return self.decode(self.encode(image, train).mean, train)


_PAPER = "Kingma and Welling 2013, https://arxiv.org/abs/1312.6114"
VARIANTS = {
    "vae_mlp": Variant(
        MlpVAE, {}, "pytorch/examples vae/main.py VAE()", (28, 28, 1), _PAPER, first="fc1"
    ),
    "vae_conv": Variant(
        ConvVAE,
        {},
        "pythae VAE(VAEConfig((1, 28, 28), 16), Encoder_Conv_VAE_MNIST, Decoder_Conv_AE_MNIST)",
        (28, 28, 1),
        _PAPER,
        first="encoder.layers.0.0",
    ),
}
