"""The discrete VAE of DALL-E: Ramesh et al., Zero-Shot Text-to-Image Generation, 2021.

https://arxiv.org/abs/2102.12092, section 2.1. At each place of a map the encoder gives the logits
of a codebook's entries. In training the decoder is given a relaxed draw of them (Gumbel-softmax:
Jang et al. 2016, https://arxiv.org/abs/1611.01144; Maddison et al. 2016,
https://arxiv.org/abs/1611.00712), in use the likeliest. The networks are those of openai/DALL-E;
the encoder has the names of transformers' `FlavaImageCodebook`, the decoder alike. The reference is
tests/parity/networks/dvae.py.

Images are from 0 to 1. Both halves know them as `map_pixels` makes them, away from 0 and 1, where
the logit-Laplace distribution has no density.
"""

from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jaxvision.layers.convolution import Conv2d
from jaxvision.layers.images import check_multiple
from jaxvision.losses.autoencoding import map_pixels, unmap_pixels
from jaxvision.models.variant import Variant
from jaxvision.ops.pooling import max_pool2d
from jaxvision.ops.resize import resize

Maps = Float[Array, "b h w c"]


class Block(nn.Module):
    """Four convolutions after a ReLU each, added in part to what came in.

    Attributes:
      features: channels of the output; a quarter within.
      gain: the part.
      kernels: of the convolutions.
    """

    features: int
    gain: float
    kernels: tuple[int, ...]
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Maps) -> Maps:
        conv = partial(Conv2d, dtype=self.dtype)
        last, y = len(self.kernels), x
        for number, kernel in enumerate(self.kernels, start=1):
            width = self.features if number == last else self.features // 4
            y = conv(width, kernel, name=f"res_path.path.conv_{number}_")(nn.relu(y))
        if x.shape[-1] != self.features:
            x = conv(self.features, 1, name="id_path")(x)
        return x + self.gain * y


class Group(nn.Module):
    """Blocks on maps of one size.

    Attributes:
      features: channels of the output.
      blocks: how many.
      gain, kernels: see `Block`.
    """

    features: int
    blocks: int
    gain: float
    kernels: tuple[int, ...]
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Maps) -> Maps:
        for number in range(1, self.blocks + 1):
            x = Block(
                self.features, self.gain, self.kernels, self.dtype, name=f"group.block_{number}_"
            )(x)
        return x


class Encoder(nn.Module):
    """Logits of the codebook's entries, of images as `map_pixels` makes them.

    Attributes:
      codes: entries of the codebook.
      hidden: channels of the first group; each further one has twice as many.
      groups: how many; maps are halved between them.
      blocks: of a group.
    """

    codes: int
    hidden: int
    groups: int = 4
    blocks: int = 2
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, image: Maps, train: bool = False) -> Float[Array, "b i j k"]:
        gain = (self.groups * self.blocks) ** -2
        x = Conv2d(self.hidden, 7, dtype=self.dtype, name="blocks.input")(image)
        for index in range(self.groups):
            name = f"blocks.group_{index + 1}_"
            width = self.hidden * 2**index
            x = Group(width, self.blocks, gain, (3, 3, 3, 1), self.dtype, name=name)(x)
            if index < self.groups - 1:
                x = max_pool2d(x, 2, 2)
        return Conv2d(self.codes, 1, dtype=self.dtype, name="blocks.output.conv")(nn.relu(x))


class Decoder(nn.Module):
    """Maps of `features` channels of entries, which may be mixed.

    Attributes:
      width: length of an entry.
      hidden, groups, blocks: as of `Encoder`, in the reverse order.
    """

    features: int
    width: int
    hidden: int
    groups: int = 4
    blocks: int = 2
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, latent: Float[Array, "b i j k"]) -> Maps:
        gain = (self.groups * self.blocks) ** -2
        x = Conv2d(self.width, 1, dtype=self.dtype, name="blocks.input")(latent)
        for index in range(self.groups):
            name = f"blocks.group_{index + 1}_"
            width = self.hidden * 2 ** (self.groups - 1 - index)
            x = Group(width, self.blocks, gain, (1, 3, 3, 3), self.dtype, name=name)(x)
            if index < self.groups - 1:
                x = resize(x, (2 * x.shape[1], 2 * x.shape[2]), "nearest")
        return Conv2d(self.features, 1, dtype=self.dtype, name="blocks.output.conv")(nn.relu(x))


class DVAE(nn.Module):
    """Images of any size whose sides are multiples of `stride`; a code for each such square.

    Attributes:
      channels: of the images.
      hidden: channels of the largest maps.
      groups: of blocks, on maps of half the size each.
      blocks: of a group.
      codes: entries of the codebook.
      width: length of an entry.
      scales: whether the decoder gives the logarithm of a scale behind each value, and both are of
        the logit-Laplace distribution; see `losses.logit_laplace_nll`.
    """

    CODE: ClassVar[str] = "tokens"

    channels: int = 3
    hidden: int = 256
    groups: int = 4
    blocks: int = 2
    codes: int = 8192
    width: int = 128
    scales: bool = False
    dtype: jnp.dtype | None = None

    def setup(self):
        sizes = (self.hidden, self.groups, self.blocks, self.dtype)
        self.encoder = Encoder(self.codes, *sizes)
        self.decoder = Decoder(self.channels * (1 + self.scales), self.width, *sizes)

    @property
    def stride(self) -> int:
        """Pixels, down and across, of one place of the map of codes."""
        return 2 ** (self.groups - 1)

    def encode(self, image: Maps, train: bool = False) -> Float[Array, "b i j k"]:
        """The logits of each place's entries."""
        check_multiple(image, self.stride, "A discrete VAE")
        return self.encoder(map_pixels(image))

    def decode(self, latent: Float[Array, "b i j k"], train: bool = False) -> Maps:
        """What is said of the pixels, of the weights of each place's entries."""
        return self.decoder(latent)

    def tokens(self, image: Maps) -> Int[Array, "b i j"]:
        """The likeliest entry of each place, of images from 0 to 1."""
        return self.encode(image).argmax(-1).astype(jnp.int32)

    def pictures(self, tokens: Int[Array, "b i j"]) -> Maps:
        """The images of tokens, from 0 to 1, of a decoder whose values are means or medians."""
        output = self.decode(jax.nn.one_hot(tokens, self.codes)).astype(jnp.float32)
        if self.scales:
            return unmap_pixels(nn.sigmoid(jnp.split(output, 2, -1)[0]))
        return jnp.clip(output, 0, 1)

    def __call__(self, image: Maps, train: bool = False) -> Maps:
        return self.decode(jax.nn.one_hot(self.tokens(image), self.codes), train)


VARIANTS = {
    "dvae": Variant(
        DVAE,
        {},
        "tests/parity/networks/dvae.py DVAE()",
        (256, 256, 3),
        "Ramesh et al. 2021, https://arxiv.org/abs/2102.12092",
        first="encoder.blocks.input",
    )
}
